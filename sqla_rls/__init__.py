"""Postgres row-level security for SQLAlchemy: what a model or an app imports."""

from sqla_rls import create as _create  # noqa: F401 - create_all() emits what is declared
from sqla_rls import provider
from sqla_rls.binding import ServiceAccess
from sqla_rls.claim_lists import in_jwt_claim, jwt_claim_contains
from sqla_rls.expression import auth, auth_uid, jwt_claim
from sqla_rls.functions import sql_function
from sqla_rls.identity import ANONYMOUS, Identity, Verifier
from sqla_rls.ignore import ignore
from sqla_rls.membership import member_of
from sqla_rls.objects import Role
from sqla_rls.privileges import declare_roles, default_privileges, grant, grant_on, revoke_from_public
from sqla_rls.schema import (
    Policy,
    anonymous,
    authenticated,
    crud_policy,
    declare,
    disable_row_security,
    enable_row_security,
    force_row_security,
)
from sqla_rls.session import enforce_row_security, identify, service_session
from sqla_rls.teams import memberships
from sqla_rls.views import view

__all__ = [
    "ANONYMOUS",
    "Identity",
    "Policy",
    "Role",
    "ServiceAccess",
    "Verifier",
    "anonymous",
    "auth",
    "auth_uid",
    "authenticated",
    "crud_policy",
    "declare",
    "declare_roles",
    "default_privileges",
    "disable_row_security",
    "enable_row_security",
    "enforce_row_security",
    "force_row_security",
    "grant",
    "grant_on",
    "identify",
    "ignore",
    "in_jwt_claim",
    "jwt_claim",
    "jwt_claim_contains",
    "member_of",
    "memberships",
    "provider",
    "revoke_from_public",
    "service_session",
    "sql_function",
    "view",
]
