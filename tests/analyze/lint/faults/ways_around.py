"""Faults that open rows to callers past policies: by views, functions, partitions, roles and privileges."""

from __future__ import annotations

from typing import Final

from tests.analyze.lint.faults.case import (
    ANONYMOUS,
    DENIED,
    DOCS,
    DOCS_ROWS,
    IDS,
    NOTHING,
    OWN,
    OWN_DOCS,
    READ_OWN_DOCS,
    Caller,
    Fault,
    Look,
)

_DOCS: Final = ("public.docs",)
_ALL_FOR_ALICE: Final = (Look(statement=IDS, faulty=[1, 2], mended=[1]),)
_LOGIN: Final = Caller(role=None, claims=None, login="app_login")
_READ_DOCS: Final = DOCS.replace("SELECT, INSERT, UPDATE, DELETE", "SELECT")

_AROUND: Final = [
    Fault(
        name="A view runs as its owner",
        group="openings",
        rule="view-without-invoker",
        objects=("public.titles",),
        schema=_READ_DOCS
        + READ_OWN_DOCS
        + """
CREATE VIEW titles AS SELECT id, body FROM docs;
GRANT SELECT ON titles TO authenticated;
""",
        rows=DOCS_ROWS,
        mend="ALTER VIEW titles SET (security_invoker = true);",
        shows=(Look(statement="SELECT id FROM titles ORDER BY id", faulty=[1, 2], mended=[1]),),
    ),
    Fault(
        name="A view with security_invoker reads a view that runs as its owner",
        group="openings",
        rule="view-without-invoker",
        objects=("public.inner_docs",),
        schema=_READ_DOCS
        + READ_OWN_DOCS
        + """
CREATE VIEW inner_docs AS SELECT id, owner FROM docs;
CREATE VIEW titles WITH (security_invoker = true) AS SELECT id FROM inner_docs;
GRANT SELECT ON inner_docs, titles TO authenticated;
""",
        rows=DOCS_ROWS,
        mend="ALTER VIEW inner_docs SET (security_invoker = true);",
        shows=(Look(statement="SELECT id FROM titles ORDER BY id", faulty=[1, 2], mended=[1]),),
    ),
    Fault(
        name="Callers write through a view that runs as its owner",
        group="openings",
        rule="view-without-invoker",
        objects=("public.doc_bodies",),
        schema=_READ_DOCS
        + READ_OWN_DOCS
        + """
CREATE VIEW doc_bodies AS SELECT id, body FROM docs;
GRANT UPDATE, SELECT ON doc_bodies TO authenticated;
""",
        rows=DOCS_ROWS,
        mend="""
ALTER VIEW doc_bodies SET (security_invoker = true);
REVOKE UPDATE ON doc_bodies FROM authenticated;
""",
        shows=(Look(statement="UPDATE doc_bodies SET body = 'x' WHERE id = 2", faulty=1, mended=DENIED),),
    ),
    Fault(
        name="A materialized view holds the rows of each owner",
        group="openings",
        rule="materialized-view",
        objects=("public.counts",),
        schema=_READ_DOCS
        + READ_OWN_DOCS
        + """
CREATE MATERIALIZED VIEW counts AS SELECT owner, count(*) FROM docs GROUP BY owner;
GRANT SELECT ON counts TO authenticated;
""",
        rows=DOCS_ROWS + "REFRESH MATERIALIZED VIEW counts;",
        mend="REVOKE SELECT ON counts FROM authenticated;",
        shows=(
            Look(statement="SELECT owner FROM counts ORDER BY owner", faulty=["alice", "bob"], mended=DENIED),
        ),
    ),
    Fault(
        name="A foreign table has no row security",
        group="openings",
        rule="foreign-table",
        objects=("public.remote_settings",),
        schema="""
RESET ROLE;
CREATE EXTENSION file_fdw;
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE remote_settings (line text) SERVER files OPTIONS (program 'printf alice\\\\nbob');
GRANT SELECT ON remote_settings TO authenticated;
""",
        rows="",
        mend="RESET ROLE; REVOKE SELECT ON remote_settings FROM authenticated;",
        shows=(Look(statement="SELECT line FROM remote_settings", faulty=["alice", "bob"], mended=DENIED),),
    ),
    Fault(
        name="A function that runs as its owner returns every row",
        group="openings",
        rule="definer-reads-protected",
        objects=("public.all_docs()",),
        schema=_READ_DOCS
        + READ_OWN_DOCS
        + """
CREATE FUNCTION all_docs() RETURNS SETOF docs LANGUAGE sql STABLE SECURITY DEFINER
  SET search_path = '' AS 'SELECT * FROM public.docs';
""",
        rows=DOCS_ROWS,
        mend="REVOKE EXECUTE ON FUNCTION all_docs() FROM PUBLIC;",
        shows=(Look(statement="SELECT id FROM all_docs() ORDER BY id", faulty=[1, 2], mended=DENIED),),
    ),
    Fault(
        name="A function that runs as its owner takes the subject as an argument",
        group="openings",
        rule="definer-reads-protected",
        objects=("public.docs_of(text)",),
        schema=_READ_DOCS
        + READ_OWN_DOCS
        + """
CREATE FUNCTION docs_of(subject text) RETURNS SETOF docs LANGUAGE plpgsql STABLE SECURITY DEFINER
  SET search_path = '' AS $$ BEGIN RETURN QUERY SELECT * FROM public.docs WHERE owner = subject; END $$;
REVOKE EXECUTE ON FUNCTION docs_of(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION docs_of(text) TO authenticated;
""",
        rows=DOCS_ROWS,
        mend="ALTER FUNCTION docs_of(text) SECURITY INVOKER;",
        shows=(Look(statement="SELECT id FROM docs_of('bob')", faulty=[2], mended=NOTHING),),
    ),
    Fault(
        name="A function that runs as its owner deletes rows of others",
        group="openings",
        rule="definer-reads-protected",
        objects=("public.remove(integer)",),
        schema=_READ_DOCS
        + READ_OWN_DOCS
        + """
CREATE FUNCTION remove(doc_id int) RETURNS SETOF int LANGUAGE sql SECURITY DEFINER
  SET search_path = '' AS 'DELETE FROM public.docs WHERE id = doc_id RETURNING id';
REVOKE EXECUTE ON FUNCTION remove(int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION remove(int) TO authenticated;
""",
        rows=DOCS_ROWS,
        mend="""
CREATE OR REPLACE FUNCTION remove(doc_id int) RETURNS SETOF int LANGUAGE sql SECURITY DEFINER
  SET search_path = ''
  AS 'DELETE FROM public.docs WHERE id = doc_id AND owner = (SELECT auth.user_id()) RETURNING id';
""",
        shows=(Look(statement="SELECT remove(2)", faulty=[2], mended=NOTHING),),
    ),
    Fault(
        name="A function that runs as its owner finds a table of the caller's first",
        group="openings",
        rule="definer-search-path",
        objects=("public.is_admin()",),
        schema=_READ_DOCS
        + """
CREATE TABLE admins (user_id text PRIMARY KEY);
ALTER TABLE admins ENABLE ROW LEVEL SECURITY;
CREATE FUNCTION is_admin() RETURNS boolean LANGUAGE plpgsql STABLE SECURITY DEFINER
  AS $$ BEGIN RETURN EXISTS (SELECT FROM admins WHERE user_id = (SELECT auth.user_id())); END $$;
CREATE POLICY own ON docs FOR SELECT TO authenticated
  USING (owner = (SELECT auth.user_id()) OR (SELECT is_admin()));
""",
        rows=DOCS_ROWS,
        mend="ALTER FUNCTION is_admin() SET search_path = public, pg_temp;",
        shows=(
            Look(
                statement=IDS,
                faulty=[1, 2],
                mended=[1],
                first=(
                    "CREATE TEMP TABLE admins (user_id text)",
                    "INSERT INTO pg_temp.admins VALUES ('alice')",
                    "GRANT SELECT ON pg_temp.admins TO PUBLIC",
                ),
            ),
        ),
    ),
    Fault(
        name="The search_path of a function that runs as its owner doesn't end in pg_temp",
        group="openings",
        rule="definer-search-path",
        objects=("public.is_admin()",),
        schema=_READ_DOCS
        + """
CREATE TABLE admins (user_id text PRIMARY KEY);
ALTER TABLE admins ENABLE ROW LEVEL SECURITY;
CREATE FUNCTION is_admin() RETURNS boolean LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public
  AS $$ BEGIN RETURN EXISTS (SELECT FROM admins WHERE user_id = (SELECT auth.user_id())); END $$;
CREATE POLICY own ON docs FOR SELECT TO authenticated
  USING (owner = (SELECT auth.user_id()) OR (SELECT is_admin()));
""",
        rows=DOCS_ROWS,
        mend="ALTER FUNCTION is_admin() SET search_path = public, pg_temp;",
        shows=(
            Look(
                statement=IDS,
                faulty=[1, 2],
                mended=[1],
                first=(
                    "CREATE TEMP TABLE admins (user_id text)",
                    "INSERT INTO pg_temp.admins VALUES ('alice')",
                    "GRANT SELECT ON pg_temp.admins TO PUBLIC",
                ),
            ),
        ),
    ),
    Fault(
        name="A partition is read past its parent",
        group="openings",
        rule="partition-past-parent",
        objects=("public.docs_1",),
        schema=f"""
CREATE TABLE docs (id int PRIMARY KEY, owner text NOT NULL) PARTITION BY RANGE (id);
CREATE INDEX docs_owner ON docs (owner);
CREATE TABLE docs_1 PARTITION OF docs FOR VALUES FROM (1) TO (100);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON docs, docs_1 TO authenticated;
{READ_OWN_DOCS}
""",
        rows="INSERT INTO docs VALUES (1, 'alice'), (2, 'bob');",
        mend="REVOKE SELECT ON docs_1 FROM authenticated;",
        shows=(
            Look(statement="SELECT id FROM docs_1 ORDER BY id", faulty=[1, 2], mended=DENIED),
            Look(statement=IDS, faulty=[1], mended=[1]),
        ),
    ),
    Fault(
        name="A partition has wider policies than its parent",
        group="openings",
        rule="partition-past-parent",
        objects=("public.docs_1",),
        schema=f"""
CREATE TABLE docs (id int PRIMARY KEY, owner text NOT NULL) PARTITION BY RANGE (id);
CREATE INDEX docs_owner ON docs (owner);
CREATE TABLE docs_1 PARTITION OF docs FOR VALUES FROM (1) TO (100);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
ALTER TABLE docs_1 ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON docs, docs_1 TO authenticated;
{READ_OWN_DOCS}
CREATE POLICY all_rows ON docs_1 FOR SELECT TO authenticated USING (true);
""",
        rows="INSERT INTO docs VALUES (1, 'alice'), (2, 'bob');",
        mend="REVOKE SELECT ON docs_1 FROM authenticated; DROP POLICY all_rows ON docs_1;",
        shows=(Look(statement="SELECT id FROM docs_1 ORDER BY id", faulty=[1, 2], mended=DENIED),),
    ),
    Fault(
        name="A child table is read past its parent",
        group="openings",
        rule="partition-past-parent",
        objects=("public.old_docs",),
        schema=_READ_DOCS
        + READ_OWN_DOCS
        + """
CREATE TABLE old_docs () INHERITS (docs);
CREATE INDEX old_docs_owner ON old_docs (owner);
GRANT SELECT ON old_docs TO authenticated;
""",
        rows="INSERT INTO old_docs VALUES (1, 'alice', 'a'), (2, 'bob', 'b');",
        mend="REVOKE SELECT ON old_docs FROM authenticated;",
        shows=(
            Look(statement="SELECT id FROM old_docs ORDER BY id", faulty=[1, 2], mended=DENIED),
            Look(statement=IDS, faulty=[1], mended=[1]),
        ),
    ),
    Fault(
        name="A table has policies, and its row security is off",
        group="openings",
        rule="row-security-off",
        objects=_DOCS,
        schema=DOCS.replace("ALTER TABLE docs ENABLE ROW LEVEL SECURITY;", "") + OWN_DOCS,
        rows=DOCS_ROWS,
        mend="ALTER TABLE docs ENABLE ROW LEVEL SECURITY;",
        shows=_ALL_FOR_ALICE,
    ),
    Fault(
        name="Row security is on, and there is no policy",
        group="openings",
        rule="row-security-without-policies",
        objects=_DOCS,
        schema=DOCS,
        rows=DOCS_ROWS,
        mend=OWN_DOCS,
        shows=(Look(statement=IDS, faulty=NOTHING, mended=[1]),),
    ),
    Fault(
        name="A table has restrictive policies only",
        group="openings",
        rule="only-restrictive",
        objects=_DOCS,
        schema=DOCS
        + f"CREATE POLICY own ON docs AS RESTRICTIVE TO authenticated USING ({OWN}) WITH CHECK ({OWN});",
        rows=DOCS_ROWS,
        mend="DROP POLICY own ON docs;" + OWN_DOCS,
        shows=(Look(statement=IDS, faulty=NOTHING, mended=[1]),),
    ),
    Fault(
        name="Callers read a table without row security, beside a protected one",
        group="openings",
        rule="table-without-row-security",
        objects=("public.invoices",),
        schema=_READ_DOCS
        + READ_OWN_DOCS
        + """
CREATE TABLE invoices (id int PRIMARY KEY, owner text NOT NULL, cents int);
CREATE INDEX invoices_owner ON invoices (owner);
GRANT SELECT ON invoices TO authenticated;
""",
        rows="INSERT INTO invoices VALUES (1, 'alice', 5), (2, 'bob', 7);",
        mend=f"""
ALTER TABLE invoices ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON invoices FOR SELECT TO authenticated USING ({OWN});
""",
        shows=(Look(statement="SELECT id FROM invoices ORDER BY id", faulty=[1, 2], mended=[1]),),
    ),
    Fault(
        name="The anonymous role reads a table without row security",
        group="openings",
        rule="table-without-row-security",
        objects=("public.sessions",),
        schema="""
CREATE TABLE sessions (id int PRIMARY KEY, token text NOT NULL);
GRANT SELECT ON sessions TO PUBLIC;
""",
        rows="INSERT INTO sessions VALUES (1, 'secret');",
        mend="REVOKE SELECT ON sessions FROM PUBLIC;",
        shows=(
            Look(statement="SELECT token FROM sessions", faulty=["secret"], mended=DENIED, caller=ANONYMOUS),
        ),
    ),
    Fault(
        name="A trigger copies protected rows to a table without row security",
        group="openings",
        rule="table-without-row-security",
        objects=("public.docs_log",),
        schema=DOCS
        + OWN_DOCS
        + """
CREATE TABLE docs_log (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, owner text, body text);
GRANT SELECT ON docs_log TO authenticated;
CREATE FUNCTION log_doc() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
  AS $$ BEGIN INSERT INTO public.docs_log (owner, body) VALUES (NEW.owner, NEW.body); RETURN NEW; END $$;
REVOKE EXECUTE ON FUNCTION log_doc() FROM PUBLIC;
CREATE TRIGGER log AFTER INSERT ON docs FOR EACH ROW EXECUTE FUNCTION log_doc();
""",
        rows=DOCS_ROWS,
        mend="REVOKE SELECT ON docs_log FROM authenticated;",
        shows=(
            Look(statement="SELECT owner FROM docs_log ORDER BY id", faulty=["alice", "bob"], mended=DENIED),
        ),
    ),
]


def _login(
    name: str, statements: str, mend: str, *, rule: str = "login-role", look: Look | None = None
) -> Fault:
    return Fault(
        name=name,
        group="openings",
        rule=rule,
        objects=("app_login", "authenticated", "public.docs"),
        schema=_READ_DOCS + READ_OWN_DOCS + "RESET ROLE;\n" + statements,
        rows=DOCS_ROWS,
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
    return Fault(
        name=f"Callers hold {privilege} on a protected table",
        group="openings",
        rule=rule,
        objects=_DOCS,
        schema=_READ_DOCS + READ_OWN_DOCS + extra + f"GRANT {privilege} ON docs TO authenticated;",
        rows=DOCS_ROWS,
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
    Fault(
        name="Callers may create objects in a schema that functions search",
        group="openings",
        rule="caller-privileges",
        objects=("public",),
        schema=_READ_DOCS + READ_OWN_DOCS + "RESET ROLE; GRANT CREATE ON SCHEMA public TO authenticated;",
        rows=DOCS_ROWS,
        mend="RESET ROLE; REVOKE CREATE ON SCHEMA public FROM authenticated;",
        shows=(
            Look(
                statement="CREATE FUNCTION public.lower(varchar) RETURNS text LANGUAGE sql AS 'SELECT 1'",
                faulty="done",
                mended=DENIED,
            ),
        ),
    ),
    Fault(
        name="The role of callers was granted TEMPORARY on the database",
        group="openings",
        rule="caller-privileges",
        objects=("DATABASE",),
        schema=_READ_DOCS
        + READ_OWN_DOCS
        + """
RESET ROLE;
DO $$ BEGIN
  EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO authenticated', current_database());
END $$;
""",
        rows=DOCS_ROWS,
        mend="""
RESET ROLE;
DO $$ BEGIN
  EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM authenticated', current_database());
END $$;
""",
        shows=(Look(statement="CREATE TEMP TABLE docs (id int)", faulty="done", mended=DENIED),),
    ),
]

FAULTS: Final = [*_AROUND, *_ROLES, *_PRIVILEGES]
