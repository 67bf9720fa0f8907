"""A stand-in for Stack Auth: the calls of its REST API that the page makes, for people without passwords."""

from __future__ import annotations

from secrets import token_urlsafe
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Header, HTTPException

from sqla_rls.testing.issuer import Issuer

PEOPLE: Final = ("alice", "bob", "carol")

#: The seconds for which a token is valid, as with Stack Auth.
LIFETIME: Final = 600


def stand_in(issuer: Issuer) -> APIRouter:
    """Return the routes; the tokens are those of *issuer*."""
    people: dict[str, str] = {}  # by their refresh tokens
    router = APIRouter(prefix="/stand-in/api/v1/auth")

    def person(refresh_token: str | None) -> str:
        if refresh_token not in people:
            raise HTTPException(401, "The session is over. Sign in again")
        return people[refresh_token or ""]

    @router.post("/password/sign-in")
    def sign_in(email: Annotated[str, Body(embed=True)]) -> dict[str, Any]:
        name = email.partition("@")[0]
        if name not in PEOPLE:
            raise HTTPException(400, "There is no such person. Sign in as one of the demo people")
        refresh_token = token_urlsafe()
        people[refresh_token] = name
        return {
            "access_token": issuer.token(name, expires_in=LIFETIME),
            "refresh_token": refresh_token,
            "user_id": name,
        }

    @router.post("/sessions/current/refresh")
    def refresh(x_stack_refresh_token: Annotated[str | None, Header()] = None) -> dict[str, str]:
        return {"access_token": issuer.token(person(x_stack_refresh_token), expires_in=LIFETIME)}

    @router.delete("/sessions/current")
    def sign_out(x_stack_refresh_token: Annotated[str | None, Header()] = None) -> dict[str, bool]:
        people.pop(x_stack_refresh_token or "", None)
        return {"success": True}

    @router.post("/demo/expired-token")
    def expired(x_stack_refresh_token: Annotated[str | None, Header()] = None) -> dict[str, str]:
        """Not Stack Auth's: a token of yesterday, to try how the page renews it."""
        return {"access_token": issuer.token(person(x_stack_refresh_token), expires_in=-86400)}

    return router
