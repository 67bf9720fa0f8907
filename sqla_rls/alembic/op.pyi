"""What ``op`` can do in a migration: Alembic's operations and ours.

Written by SQLA_RLS_WRITE_OP_STUB=1 pytest tests/alembic/test_typed_op.py, from operations/.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from alembic.op import *  # noqa: F403

def alter_policy(
    policy_name: str,
    table_name: str,
    *,
    roles: Sequence[str] | None = None,
    using: str | None = None,
    with_check: str | None = None,
    new_policy_name: str | None = None,
    schema: str | None = None,
) -> None: ...
def alter_rls_role(
    name: str, *, login: bool | None = None, inherit: bool | None = None, bypassrls: bool | None = None
) -> None: ...
def check_rls_function(name: str, *, schema: str | None = None) -> None: ...
def confirm_exposure(
    table_name: str, exposure: str, *, confirmed: bool, schema: str | None = None
) -> None: ...
def create_auth_functions(*, signed: bool | None = None) -> None: ...
def create_policy(
    policy_name: str,
    table_name: str,
    *,
    command: str = "ALL",
    roles: Sequence[str] = ("public",),
    using: str | None = None,
    with_check: str | None = None,
    permissive: bool = True,
    comment: str | None = None,
    schema: str | None = None,
    if_roles_exist: bool = False,
) -> None: ...
def create_rls_function(
    name: str,
    *,
    returns: str,
    body: str,
    arguments: str = "",
    volatility: str = "VOLATILE",
    security_definer: bool = False,
    settings: Sequence[str] = (),
    language: str = "sql",
    parallel: str = "UNSAFE",
    strict: bool = False,
    leakproof: bool = False,
    check_body: bool = True,
    comment: str | None = None,
    schema: str | None = None,
) -> None: ...
def create_rls_role(
    name: str,
    *,
    login: bool | None = None,
    inherit: bool | None = None,
    bypassrls: bool | None = None,
    member_of: Sequence[str] | None = None,
    keep_memberships: bool = False,
) -> None: ...
def create_rls_view(
    name: str,
    definition: str,
    *,
    security_invoker: bool = True,
    security_barrier: bool = False,
    check_option: str | None = None,
    comment: str | None = None,
    column_comments: Mapping[str, str] | None = None,
    schema: str | None = None,
) -> None: ...
def disable_row_level_security(table_name: str, *, schema: str | None = None) -> None: ...
def drop_auth_functions(*, signed: bool = True) -> None: ...
def drop_policy(policy_name: str, table_name: str, *, schema: str | None = None) -> None: ...
def drop_rls_function(name: str, *, schema: str | None = None) -> None: ...
def drop_rls_role(name: str) -> None: ...
def drop_rls_view(name: str, *, schema: str | None = None) -> None: ...
def enable_row_level_security(table_name: str, *, schema: str | None = None) -> None: ...
def force_row_level_security(table_name: str, *, schema: str | None = None) -> None: ...
def grant(
    privileges: Sequence[str],
    object_name: str | None,
    grantees: Sequence[str],
    *,
    columns: Sequence[str] | None = None,
    object_type: str = "TABLE",
    schema: str | None = None,
    grant_option: bool = False,
    if_roles_exist: bool = False,
    if_exists: bool = False,
) -> None: ...
def grant_default_privileges(
    privileges: Sequence[str],
    object_type: str,
    grantees: Sequence[str],
    *,
    schema: str | None = None,
    current_schema: bool = False,
) -> None: ...
def grant_public_privileges(privileges: Sequence[str]) -> None: ...
def grant_role(
    role: str,
    member: str,
    *,
    admin: bool = False,
    inherit: bool | None = None,
    set: bool | None = None,
    if_roles_exist: bool = False,
) -> None: ...
def no_force_row_level_security(table_name: str, *, schema: str | None = None) -> None: ...
def replace_rls_view(
    name: str,
    definition: str,
    *,
    security_invoker: bool = True,
    security_barrier: bool = False,
    check_option: str | None = None,
    schema: str | None = None,
) -> None: ...
def revoke(
    privileges: Sequence[str],
    object_name: str | None,
    grantees: Sequence[str],
    *,
    columns: Sequence[str] | None = None,
    object_type: str = "TABLE",
    schema: str | None = None,
    cascade: bool = False,
    granted_by: Sequence[str] = (),
) -> None: ...
def revoke_default_privileges(
    privileges: Sequence[str],
    object_type: str,
    grantees: Sequence[str],
    *,
    schema: str | None = None,
    current_schema: bool = False,
) -> None: ...
def revoke_public_privileges(privileges: Sequence[str]) -> None: ...
def revoke_role(role: str, member: str) -> None: ...
def without_forced_row_level_security(
    *table_names: str, schema: str | None = None
) -> AbstractContextManager[None]: ...
