"""Postgres row-level security for SQLAlchemy: the public names for models and apps."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sqla_rls import schema_events as _events  # noqa: F401 - create_all() emits what is declared
from sqla_rls.declare.auth import auth, jwt_claim
from sqla_rls.declare.base import anonymous, authenticated, declare_on
from sqla_rls.declare.claim_lists import in_jwt_claim, jwt_claim_contains
from sqla_rls.declare.default_privileges import default_privileges, revoke_public_privileges
from sqla_rls.declare.expressions import auth_uid
from sqla_rls.declare.functions import sql_function
from sqla_rls.declare.grants import grant, grant_on
from sqla_rls.declare.ignore import ignore
from sqla_rls.declare.membership import member_of
from sqla_rls.declare.memberships import memberships
from sqla_rls.declare.permitted import permitted
from sqla_rls.declare.policies import (
    Policy,
    crud_policy,
    disable_row_level_security,
    enable_row_level_security,
    force_row_level_security,
)
from sqla_rls.declare.roles import declare_roles
from sqla_rls.declare.shortcuts import CallerId, CallerUuid, login_role, own_rows
from sqla_rls.declare.views import view
from sqla_rls.snapshot import Role

if TYPE_CHECKING:
    from sqla_rls import provider
    from sqla_rls.session.enforce import enforce_row_security, identify, service_session
    from sqla_rls.session.options import BindingOptions
    from sqla_rls.session.principal import ServiceAccess
    from sqla_rls.tokens.caller import Caller
    from sqla_rls.tokens.verifier import Verifier
else:
    # The first use imports them: a migration binds no caller, and only a Verifier needs PyJWT.
    _MODULES = {
        "BindingOptions": "sqla_rls.session.options",
        "Caller": "sqla_rls.tokens.caller",
        "ServiceAccess": "sqla_rls.session.principal",
        "Verifier": "sqla_rls.tokens.verifier",
        "enforce_row_security": "sqla_rls.session.enforce",
        "identify": "sqla_rls.session.enforce",
        "service_session": "sqla_rls.session.enforce",
    }

    def __getattr__(name: str) -> Any:
        if name == "provider":
            return import_module("sqla_rls.provider")
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found = getattr(import_module(_MODULES[name]), name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "BindingOptions",
    "Caller",
    "CallerId",
    "CallerUuid",
    "Policy",
    "Role",
    "ServiceAccess",
    "Verifier",
    "anonymous",
    "auth",
    "auth_uid",
    "authenticated",
    "crud_policy",
    "declare_on",
    "declare_roles",
    "default_privileges",
    "disable_row_level_security",
    "enable_row_level_security",
    "enforce_row_security",
    "force_row_level_security",
    "grant",
    "grant_on",
    "identify",
    "ignore",
    "in_jwt_claim",
    "jwt_claim",
    "jwt_claim_contains",
    "login_role",
    "member_of",
    "memberships",
    "own_rows",
    "permitted",
    "provider",
    "revoke_public_privileges",
    "service_session",
    "sql_function",
    "view",
]
