"""A policy for a role that callers may become by SET ROLE, inherit, or neither."""

from __future__ import annotations

import pytest

from tests.analyze.lint.examples import Examples, shown

TABLE = """
CREATE ROLE app_login LOGIN NOINHERIT; CREATE ROLE editors; CREATE ROLE team;
GRANT anonymous, authenticated TO app_login;
CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
CREATE POLICY edit ON docs FOR SELECT TO editors USING (owner_id IS NULL);
GRANT SELECT ON docs TO authenticated, editors;
"""
UNBOUND = "warning unbound-role public.docs"
# The memberships, and whether the policy for editors has no caller.  WITH … needs PostgreSQL 16.
CASES = {
    "by SET ROLE": ("GRANT editors TO app_login", False),
    "without SET": ("GRANT editors TO app_login WITH SET FALSE", True),
    "without SET, inherited": ("GRANT editors TO app_login WITH SET FALSE, INHERIT TRUE", False),
    "by SET ROLE in two steps": (
        "GRANT editors TO team; GRANT team TO app_login WITH SET TRUE, INHERIT FALSE",
        False,
    ),
    "a second step without SET": (
        "GRANT editors TO team WITH SET FALSE, INHERIT FALSE; GRANT team TO app_login",
        True,
    ),
    "a first step without SET": ("GRANT editors TO team; GRANT team TO app_login WITH SET FALSE", True),
    "inherited by the caller's role": ("GRANT editors TO authenticated WITH SET FALSE", False),
    "not inherited by the caller's role": (
        "GRANT editors TO authenticated WITH SET FALSE, INHERIT FALSE",
        True,
    ),
}


@pytest.mark.exhaustive
@pytest.mark.one_postgres
def test_a_policy_needs_a_role_that_a_caller_becomes_or_inherits(
    examples: Examples, subtests: pytest.Subtests
) -> None:
    version = examples.connection.dialect.server_version_info
    assert version is not None
    has_options = version >= (16,)
    for name, (memberships, is_unbound) in CASES.items():
        if "WITH" in memberships and not has_options:
            continue
        with subtests.test(name):
            found = examples.look(f"{TABLE} {memberships};", select=["unbound-role"])

            assert shown(found) == ([UNBOUND] if is_unbound else [])
            # The statement that mends a membership without SET names the option.
            if name == "without SET":
                remedy = found.findings[0].remedy
                assert remedy is not None
                assert remedy.sql == "GRANT editors TO app_login WITH SET TRUE;"
                assert not examples.look(
                    f"{TABLE} {memberships}; {remedy.sql}", select=["unbound-role"]
                ).findings
