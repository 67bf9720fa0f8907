"""Faults that open rows to callers past policies: by attributes of roles, and by privileges."""

from __future__ import annotations

from typing import Final

from tests.analyze.lint.faults.case import (
    DENIED,
    DOCS_ROWS,
    IDS,
    Caller,
    Fault,
    Look,
    beside_docs,
)

_DOCS: Final = ("public.docs",)
_LOGIN: Final = Caller(role=None, claims=None, login="app_login")


def _login(
    name: str, statements: str, mend: str, *, rule: str = "login-role", look: Look | None = None
) -> Fault:
    return beside_docs(
        name=name,
        rule=rule,
        objects=("app_login", "authenticated", "public.docs"),
        schema="RESET ROLE;\n" + statements,
        mend="RESET ROLE;\n" + mend,
        shows=(look or Look(statement=IDS, faulty=[1, 2], mended=DENIED, caller=_LOGIN),),
    )


_ROLES: Final = [
    _login(
        "The login role is a superuser",
        "ALTER ROLE app_login SUPERUSER;",
        "ALTER ROLE app_login NOSUPERUSER;",
    ),
    _login(
        "The login role has BYPASSRLS",
        "ALTER ROLE app_login BYPASSRLS; GRANT SELECT ON docs TO app_login;",
        "ALTER ROLE app_login NOBYPASSRLS; REVOKE SELECT ON docs FROM app_login;",
    ),
    _login(
        "The login role owns the table",
        "GRANT CREATE ON SCHEMA public TO app_login; ALTER TABLE docs OWNER TO app_login;",
        "ALTER TABLE docs OWNER TO app_owner; REVOKE CREATE ON SCHEMA public FROM app_login;",
    ),
    _login(
        "The login role inherits the privileges of its callers, before a caller is bound",
        """
ALTER ROLE app_login INHERIT;
REVOKE authenticated FROM app_login;
GRANT authenticated TO app_login;
CREATE POLICY notices ON docs FOR SELECT TO authenticated USING (body = 'b');
""",
        """
DROP POLICY notices ON docs;
REVOKE authenticated FROM app_login;
ALTER ROLE app_login NOINHERIT;
GRANT authenticated TO app_login;
""",
        look=Look(statement=IDS, faulty=[2], mended=DENIED, caller=_LOGIN),
    ),
    _login(
        "The login role can SET ROLE to a role with BYPASSRLS",
        "CREATE ROLE service BYPASSRLS; GRANT SELECT ON docs TO service; GRANT service TO app_login;",
        "REVOKE service FROM app_login;",
        look=Look(
            statement=IDS,
            first=("SET ROLE service",),
            faulty=[1, 2],
            mended=DENIED,
            caller=_LOGIN,
        ),
    ),
    _login(
        "The login role owns a table below a view that a policy reads",
        """
CREATE TABLE shared (id int);
CREATE VIEW shown AS SELECT id FROM shared;
GRANT SELECT ON shown TO authenticated;
CREATE POLICY shown ON docs FOR SELECT TO authenticated USING (id IN (SELECT id FROM shown));
ALTER TABLE shared OWNER TO app_login;
""",
        "ALTER TABLE shared OWNER TO app_owner;",
        look=Look(
            statement=IDS,
            first=("INSERT INTO shared VALUES (2)", "SET ROLE authenticated"),
            faulty=[2],
            mended=DENIED,
            caller=_LOGIN,
        ),
    ),
    _login(
        "The login role owns the function of an operator that a policy uses",
        """
CREATE FUNCTION same(text, text) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1 = $2';
CREATE OPERATOR === (LEFTARG = text, RIGHTARG = text, FUNCTION = same);
CREATE POLICY same ON docs FOR SELECT TO authenticated USING (body === '');
GRANT CREATE ON SCHEMA public TO app_login;
ALTER FUNCTION same OWNER TO app_login;
""",
        "ALTER FUNCTION same OWNER TO app_owner;",
        look=Look(
            statement=IDS,
            first=(
                "CREATE OR REPLACE FUNCTION same(text, text) RETURNS bool LANGUAGE sql AS 'SELECT true'",
                "SET ROLE authenticated",
            ),
            faulty=[1, 2],
            mended=DENIED,
            caller=_LOGIN,
        ),
    ),
    _login(
        "The login role can SET ROLE to the owner",
        "GRANT app_owner TO app_login;",
        "REVOKE app_owner FROM app_login;",
        look=Look(statement=IDS, first=("SET ROLE app_owner",), faulty=[1, 2], mended=DENIED, caller=_LOGIN),
    ),
    _login(
        "The login role can SET ROLE to a superuser through another role",
        "CREATE ROLE ops NOINHERIT; CREATE ROLE root SUPERUSER; GRANT root TO ops; GRANT ops TO app_login;",
        "REVOKE ops FROM app_login;",
        look=Look(statement=IDS, first=("SET ROLE root",), faulty=[1, 2], mended=DENIED, caller=_LOGIN),
    ),
    _login(
        "The role of callers inherits the owner",
        "GRANT app_owner TO authenticated;",
        "REVOKE app_owner FROM authenticated;",
        look=Look(statement=IDS, faulty=[1, 2], mended=[1]),
    ),
    _login(
        "The role of callers has BYPASSRLS",
        "ALTER ROLE authenticated BYPASSRLS;",
        "ALTER ROLE authenticated NOBYPASSRLS;",
        look=Look(statement=IDS, faulty=[1, 2], mended=[1]),
    ),
    Fault(
        name="The owner connects, and FORCE is missing",
        group="openings",
        rule="force-missing",
        objects=("public.docs", "app_owner", "web"),
        schema="""
RESET ROLE;
DROP ROLE app_login;
CREATE ROLE web LOGIN;
GRANT CREATE, USAGE ON SCHEMA public TO web;
SET LOCAL ROLE web;
CREATE TABLE docs (id int PRIMARY KEY, owner text NOT NULL, body text);
CREATE INDEX docs_owner ON docs (owner);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON docs USING (owner = current_setting('app.user_id', true));
""",
        rows=DOCS_ROWS,
        mend="RESET ROLE; ALTER TABLE docs FORCE ROW LEVEL SECURITY;",
        shows=(
            Look(
                statement=IDS,
                faulty=[1, 2],
                mended=[1],
                caller=Caller(login="web", role=None, settings={"app.user_id": "alice"}),
            ),
        ),
    ),
]


def _privilege(
    privilege: str, *looks: Look, extra: str = "", since: int = 15, rule: str = "caller-privileges"
) -> Fault:
    return beside_docs(
        name=f"Callers hold {privilege} on a protected table",
        rule=rule,
        objects=_DOCS,
        schema=extra + f"GRANT {privilege} ON docs TO authenticated;",
        mend=f"REVOKE {privilege} ON docs FROM authenticated;",
        shows=looks,
        since=since,
    )


_PRIVILEGES: Final = [
    _privilege("TRUNCATE", Look(statement="TRUNCATE docs", faulty="done", mended=DENIED)),
    _privilege(
        "REFERENCES",
        Look(
            # A key that exists, though its row is hidden.
            statement="INSERT INTO drafts.probe VALUES (2)",
            first=("CREATE TABLE drafts.probe (id int REFERENCES public.docs)",),
            faulty=1,
            mended=DENIED,
        ),
        Look(
            statement="INSERT INTO drafts.probe VALUES (3)",
            first=("CREATE TABLE drafts.probe (id int REFERENCES public.docs)",),
            faulty="23503",
            mended=DENIED,
        ),
        extra="""
RESET ROLE; CREATE SCHEMA drafts AUTHORIZATION authenticated; SET LOCAL ROLE app_owner;
""",
    ),
    _privilege(
        "TRIGGER",
        Look(
            statement=(
                "CREATE TRIGGER spy BEFORE INSERT ON docs FOR EACH ROW EXECUTE FUNCTION pg_temp.spy()"
            ),
            first=(
                "CREATE FUNCTION pg_temp.spy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            ),
            faulty="done",
            mended=DENIED,
        ),
    ),
    _privilege(
        "MAINTAIN",
        Look(statement="LOCK TABLE docs IN ACCESS EXCLUSIVE MODE", faulty="done", mended=DENIED),
        since=17,
    ),
    beside_docs(
        name="Callers may create objects in a schema that functions search",
        rule="caller-privileges",
        objects=("public",),
        schema="RESET ROLE; GRANT CREATE ON SCHEMA public TO authenticated;",
        mend="RESET ROLE; REVOKE CREATE ON SCHEMA public FROM authenticated;",
        shows=(
            Look(
                statement="CREATE FUNCTION public.lower(varchar) RETURNS text LANGUAGE sql AS 'SELECT 1'",
                faulty="done",
                mended=DENIED,
            ),
        ),
    ),
    beside_docs(
        name="The role of callers was granted TEMPORARY on the database",
        rule="caller-privileges",
        objects=("DATABASE",),
        schema="""
RESET ROLE;
DO $$ BEGIN
  EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO authenticated', current_database());
END $$;
""",
        mend="""
RESET ROLE;
DO $$ BEGIN
  EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM authenticated', current_database());
END $$;
""",
        shows=(Look(statement="CREATE TEMP TABLE docs (id int)", faulty="done", mended=DENIED),),
    ),
]

FAULTS: Final = [*_ROLES, *_PRIVILEGES]
