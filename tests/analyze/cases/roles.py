"""Changes of owners, memberships and attributes of roles, and of privileges."""

from __future__ import annotations

from tests.analyze.cases.case import (
    DOCS,
    DOCS_ROWS,
    MINE,
    TEAMS,
    TEAMS_ROWS,
    Case,
    closes,
    opens,
    rows,
    verdicts,
)

_ME = "(SELECT auth.user_id())"
_OWN = f"owner = {_ME}"
_MINE = f"CREATE POLICY mine ON docs TO authenticated USING ({_OWN});"
_PLAIN = "CREATE TABLE docs (id int PRIMARY KEY, owner text, body text);"
_OWNED = DOCS + _MINE + "GRANT ALL ON SCHEMA public TO app_owner; ALTER TABLE docs OWNER TO app_owner;"

CASES = [
    Case(
        name="BYPASSRLS",
        before=DOCS + _MINE + "GRANT SELECT, UPDATE ON docs TO support;",
        after="ALTER ROLE support BYPASSRLS;",
        rows=DOCS_ROWS,
        others=("support",),
        expected=opens("docs", "SELECT UPDATE", "support"),
    ),
    Case(
        name="BYPASSRLS of a role without privileges",
        before=DOCS + _MINE,
        after="ALTER ROLE support BYPASSRLS;",
        rows=DOCS_ROWS,
        others=("support",),
    ),
    Case(
        name="A role becomes a superuser",
        before=DOCS + _MINE,
        after="ALTER ROLE support SUPERUSER;",
        rows=DOCS_ROWS,
        others=("support",),
        expected=opens("docs", "ALL", "support"),
    ),
    Case(
        name="A member of the owner",
        before=DOCS + _MINE + "ALTER TABLE docs OWNER TO app_owner;",
        after="GRANT app_owner TO support;",
        rows=DOCS_ROWS,
        others=(
            "app_owner",
            "support",
        ),
        expected=opens("docs", "ALL", "support"),
    ),
    Case(
        name="A member of the owner, of a table with FORCE",
        before=DOCS
        + _MINE
        + "ALTER TABLE docs OWNER TO app_owner; ALTER TABLE docs FORCE ROW LEVEL SECURITY;",
        after="GRANT app_owner TO support;",
        rows=DOCS_ROWS,
        others=(
            "app_owner",
            "support",
        ),
    ),
    Case(
        name="The owner no longer has to obey",
        before=_OWNED + "ALTER TABLE docs FORCE ROW LEVEL SECURITY;",
        after="ALTER TABLE docs NO FORCE ROW LEVEL SECURITY;",
        rows=DOCS_ROWS,
        others=("app_owner",),
        expected=opens("docs", "ALL", "app_owner"),
    ),
    Case(
        name="The owner has to obey",
        before=_OWNED,
        after="ALTER TABLE docs FORCE ROW LEVEL SECURITY;",
        rows=DOCS_ROWS,
        others=("app_owner",),
        expected=closes("docs", "ALL", "app_owner"),
    ),
    Case(
        name="The table gets another owner",
        before=DOCS + _MINE + "ALTER TABLE docs OWNER TO app_owner; GRANT ALL ON docs TO support;",
        after="ALTER TABLE docs OWNER TO support;",
        rows=DOCS_ROWS,
        others=(
            "app_owner",
            "support",
        ),
        expected=opens("docs", "ALL", "support") | closes("docs", "ALL", "app_owner"),
    ),
    Case(
        name="A member inherits the policies of a group",
        before=DOCS
        + "GRANT SELECT ON docs TO support, editors;"
        + "CREATE POLICY every ON docs FOR SELECT TO editors USING (true);",
        after="GRANT editors TO support;",
        rows=DOCS_ROWS,
        others=(
            "editors",
            "support",
        ),
        expected=opens("docs", "SELECT", "support"),
    ),
    Case(
        name="A member no longer inherits",
        before=DOCS
        + "GRANT SELECT ON docs TO support, editors; GRANT editors TO support;"
        + "CREATE POLICY every ON docs FOR SELECT TO editors USING (true);",
        after="REVOKE editors FROM support; ALTER ROLE support NOINHERIT; GRANT editors TO support;",
        rows=DOCS_ROWS,
        others=(
            "editors",
            "support",
        ),
        # The role could still take the other by SET ROLE: that is the other's access.
        expected=closes("docs", "SELECT", "support"),
    ),
    Case(
        name="A group in between adds nothing",
        before=DOCS
        + "GRANT SELECT ON docs TO editors; GRANT editors TO support;"
        + "CREATE POLICY every ON docs FOR SELECT TO editors USING (true);",
        after="GRANT editors TO staff; GRANT staff TO support; REVOKE editors FROM support;",
        rows=DOCS_ROWS,
        others=(
            "editors",
            "staff",
            "support",
        ),
        expected=opens("docs", "SELECT", "staff"),
    ),
    Case(
        name="A privilege on one column",
        before=_PLAIN + "GRANT SELECT (id, owner) ON docs TO authenticated;",
        after="GRANT SELECT (body) ON docs TO authenticated;",
        rows=DOCS_ROWS,
        expected=opens("docs", "SELECT"),
        is_quick=True,
    ),
    Case(
        name="A privilege on all columns respelled as one on the table",
        before=_PLAIN + "GRANT SELECT (id, owner, body) ON docs TO authenticated;",
        after="REVOKE SELECT (id, owner, body) ON docs FROM authenticated; GRANT SELECT ON docs TO authenticated;",
        rows=DOCS_ROWS,
    ),
    Case(
        name="UPDATE of a second column",
        before=_PLAIN + "GRANT SELECT, UPDATE (body) ON docs TO authenticated;",
        after="GRANT UPDATE (owner) ON docs TO authenticated;",
        rows=DOCS_ROWS,
        expected=opens("docs", "UPDATE"),
    ),
    Case(
        name="INSERT of a column less",
        before=_PLAIN + "GRANT SELECT, INSERT ON docs TO authenticated;",
        after="REVOKE INSERT ON docs FROM authenticated; GRANT INSERT (id, body) ON docs TO authenticated;",
        rows=DOCS_ROWS,
        inserts={"docs": rows("id body", (9, "new"))},
        expected=closes("docs", "INSERT"),
    ),
    Case(
        name="SELECT is revoked, and with it WHERE and RETURNING",
        before=_PLAIN + "GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO authenticated;",
        after="REVOKE SELECT ON docs FROM authenticated;",
        rows=DOCS_ROWS,
        expected=closes("docs", "ALL"),
    ),
    Case(
        name="A privilege for the anonymous, whom a policy for PUBLIC admits",
        before=DOCS.replace("TO anonymous, authenticated", "TO authenticated")
        + "CREATE POLICY public ON docs USING (body = 'public');",
        after="GRANT SELECT ON docs TO anonymous;",
        rows={"docs": rows("id owner body", (1, "a", "public"), (2, "a", "x"))},
        expected=opens("docs", "SELECT", "anonymous"),
    ),
    Case(
        name="A privilege for the anonymous, whom no policy admits",
        before=DOCS.replace("TO anonymous, authenticated", "TO authenticated") + _MINE,
        after="GRANT ALL ON docs TO anonymous;",
        rows=DOCS_ROWS,
    ),
    Case(
        name="A privilege for PUBLIC",
        before=_PLAIN,
        after="GRANT SELECT ON docs TO PUBLIC;",
        rows=DOCS_ROWS,
        # A role of this name, without privileges, stands for all roles.
        others=("PUBLIC",),
        expected=opens("docs", "SELECT", "anonymous", "authenticated", "PUBLIC"),
    ),
    Case(
        name="The role's own privilege goes, that of PUBLIC stays",
        before=_PLAIN + "GRANT SELECT ON docs TO PUBLIC, authenticated;",
        after="REVOKE SELECT ON docs FROM authenticated;",
        rows=DOCS_ROWS,
    ),
    Case(
        name="Privileges are revoked",
        before=DOCS + _MINE,
        after="REVOKE UPDATE, DELETE ON docs FROM authenticated;",
        rows=DOCS_ROWS,
        # INSERT with ON CONFLICT DO UPDATE needs the privilege, too.
        expected=closes("docs", "INSERT UPDATE DELETE"),
    ),
    Case(
        name="USAGE of the schema is revoked",
        before="CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO authenticated;"
        "CREATE TABLE app.docs (id int PRIMARY KEY, body text); GRANT SELECT, INSERT ON app.docs TO authenticated;",
        after="REVOKE USAGE ON SCHEMA app FROM authenticated;",
        rows={"app.docs": rows("id body", (1, "x"))},
        expected=closes("app.docs", "SELECT INSERT"),
    ),
    Case(
        name="USAGE of a schema with open tables",
        before="CREATE SCHEMA app; CREATE TABLE app.docs (id int PRIMARY KEY, body text);"
        "GRANT SELECT ON app.docs TO PUBLIC;",
        after="GRANT USAGE ON SCHEMA app TO anonymous;",
        rows={"app.docs": rows("id body", (1, "x"))},
        expected=opens("app.docs", "SELECT", "anonymous"),
    ),
    Case(
        name="The policy's own table is no longer readable",
        before=TEAMS + f"CREATE POLICY mine ON docs TO authenticated USING ({MINE});",
        after="REVOKE SELECT ON members FROM authenticated;",
        rows=TEAMS_ROWS,
        expected=closes("docs", "ALL") | closes("members", "SELECT"),
    ),
    Case(
        name="EXECUTE of the policy's function is revoked",
        before=DOCS
        + "CREATE FUNCTION me() RETURNS text LANGUAGE sql STABLE AS 'SELECT auth.user_id()';"
        + "CREATE POLICY mine ON docs TO authenticated USING (owner = (SELECT me()));",
        after="REVOKE EXECUTE ON FUNCTION me() FROM PUBLIC;",
        rows=DOCS_ROWS,
        expected=closes("docs", "ALL"),
        in_place="a function changes",
    ),
    Case(
        name="The policy's role gets its privilege through a group",
        before=DOCS.replace("TO anonymous, authenticated", "TO anonymous") + _MINE,
        after="GRANT SELECT ON docs TO staff; GRANT staff TO authenticated;",
        rows=DOCS_ROWS,
        others=("staff",),
        expected=opens("docs", "SELECT"),
    ),
    Case(
        name="Default privileges change nothing that exists",
        before=DOCS + _MINE,
        after="ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;",
        rows=DOCS_ROWS,
    ),
    Case(
        name="A foreign table becomes readable",
        before="CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER elsewhere FOREIGN DATA WRAPPER nowhere;"
        "CREATE FOREIGN TABLE far (id int, body text) SERVER elsewhere;",
        after="GRANT SELECT ON far TO anonymous;",
        rows={},
        # Its rows are in another place, which the command can't reach here.
        expected=verdicts("unknown", "far", "SELECT", "anonymous"),
    ),
    Case(
        name="The role of a policy is its group, and the other way round",
        before=DOCS
        + "GRANT staff TO authenticated;"
        + f"CREATE POLICY mine ON docs FOR SELECT TO staff USING ({_OWN}); GRANT SELECT ON docs TO staff;",
        after="ALTER POLICY mine ON docs TO authenticated;",
        rows=DOCS_ROWS,
        others=("staff",),
        expected=closes("docs", "SELECT", "staff"),
    ),
]
