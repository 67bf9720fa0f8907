"""Faults that open rows to callers past policies: by views, functions, partitions and tables."""

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
    READ_DOCS,
    READ_OWN_DOCS,
    Fault,
    Look,
    beside_docs,
)

_DOCS: Final = ("public.docs",)
_ALL_FOR_ALICE: Final = (Look(statement=IDS, faulty=[1, 2], mended=[1]),)


def _search_path(name: str, clause: str = "") -> Fault:
    """A function that runs as its owner, with *clause*, and reads a table of the caller's."""
    return Fault(
        name=name,
        group="openings",
        rule="definer-search-path",
        objects=("public.is_admin()",),
        schema=READ_DOCS
        + f"""
CREATE TABLE admins (user_id text PRIMARY KEY);
ALTER TABLE admins ENABLE ROW LEVEL SECURITY;
CREATE FUNCTION is_admin() RETURNS boolean LANGUAGE plpgsql STABLE SECURITY DEFINER{clause}
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
    )


#: The owner of a view or a function, who reads each document by a policy of its own.
_REPORTING: Final = """
RESET ROLE;
CREATE ROLE reporting;
GRANT USAGE, CREATE ON SCHEMA public TO reporting;
GRANT SELECT ON docs TO reporting;
CREATE POLICY all_rows ON docs FOR SELECT TO reporting USING (true);
"""

FAULTS: Final = [
    beside_docs(
        name="A function runs as a role that reads more rows than its callers",
        rule="definer-reads-protected",
        objects=("public.all_docs()",),
        schema=_REPORTING
        + """
SET ROLE reporting;
CREATE FUNCTION all_docs() RETURNS SETOF docs LANGUAGE sql STABLE SECURITY DEFINER
  SET search_path = '' AS 'SELECT * FROM public.docs';
""",
        mend="RESET ROLE; ALTER FUNCTION all_docs() SECURITY INVOKER;",
        shows=(Look(statement="SELECT id FROM all_docs() ORDER BY id", faulty=[1, 2], mended=[1]),),
    ),
    beside_docs(
        name="A view runs as a role that reads more rows than its callers",
        rule="view-without-invoker",
        objects=("public.titles",),
        schema=_REPORTING
        + """
SET ROLE reporting;
CREATE VIEW titles AS SELECT id, body FROM docs;
GRANT SELECT ON titles TO authenticated;
""",
        mend="RESET ROLE; ALTER VIEW titles SET (security_invoker = true);",
        shows=(Look(statement="SELECT id FROM titles ORDER BY id", faulty=[1, 2], mended=[1]),),
    ),
    beside_docs(
        name="A view shows one role of several more rows than its policies",
        rule="view-without-invoker",
        objects=("public.titles",),
        schema="""
RESET ROLE;
CREATE ROLE all_reader;
GRANT SELECT ON docs TO all_reader;
CREATE POLICY all_rows ON docs FOR SELECT TO all_reader USING (true);
SET ROLE app_owner;
CREATE VIEW titles AS SELECT id, body FROM docs;
GRANT SELECT ON titles TO all_reader, authenticated;
""",
        mend="ALTER VIEW titles SET (security_invoker = true);",
        shows=(Look(statement="SELECT id FROM titles ORDER BY id", faulty=[1, 2], mended=[1]),),
    ),
    beside_docs(
        name="A function runs as a role that deletes more rows than its callers",
        rule="definer-reads-protected",
        objects=("public.remove(integer)",),
        schema="""
RESET ROLE;
CREATE ROLE janitor;
GRANT USAGE, CREATE ON SCHEMA public TO janitor;
GRANT SELECT, DELETE ON docs TO janitor;
GRANT DELETE ON docs TO authenticated;
CREATE POLICY own_too ON docs FOR DELETE TO authenticated USING (owner = (SELECT auth.user_id()));
CREATE POLICY readable ON docs FOR SELECT TO janitor USING (owner = (SELECT auth.user_id()));
CREATE POLICY all_rows ON docs FOR DELETE TO janitor USING (true);
SET ROLE janitor;
CREATE FUNCTION remove(doc_id int) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
  AS $$ BEGIN DELETE FROM public.docs; END $$;
""",
        mend="RESET ROLE; ALTER FUNCTION remove(int) SECURITY INVOKER;",
        shows=(
            Look(
                statement="SELECT count(*) FROM docs",
                faulty=[0],
                mended=[1],
                first=(
                    "SELECT remove(2)",
                    """SELECT set_config('request.jwt.claims', '{"sub": "bob"}', true)""",
                ),
            ),
        ),
    ),
    beside_docs(
        name="A view runs as its owner",
        rule="view-without-invoker",
        objects=("public.titles",),
        schema="""
CREATE VIEW titles AS SELECT id, body FROM docs;
GRANT SELECT ON titles TO authenticated;
""",
        mend="ALTER VIEW titles SET (security_invoker = true);",
        shows=(Look(statement="SELECT id FROM titles ORDER BY id", faulty=[1, 2], mended=[1]),),
    ),
    beside_docs(
        name="A view with security_invoker reads a view that runs as its owner",
        rule="view-without-invoker",
        objects=("public.inner_docs",),
        schema="""
CREATE VIEW inner_docs AS SELECT id, owner FROM docs;
CREATE VIEW titles WITH (security_invoker = true) AS SELECT id FROM inner_docs;
GRANT SELECT ON inner_docs, titles TO authenticated;
""",
        mend="ALTER VIEW inner_docs SET (security_invoker = true);",
        shows=(Look(statement="SELECT id FROM titles ORDER BY id", faulty=[1, 2], mended=[1]),),
    ),
    beside_docs(
        name="Callers write through a view that runs as its owner",
        rule="view-without-invoker",
        objects=("public.doc_bodies",),
        schema="""
CREATE VIEW doc_bodies AS SELECT id, body FROM docs;
GRANT UPDATE, SELECT ON doc_bodies TO authenticated;
""",
        mend="""
ALTER VIEW doc_bodies SET (security_invoker = true);
REVOKE UPDATE ON doc_bodies FROM authenticated;
""",
        shows=(Look(statement="UPDATE doc_bodies SET body = 'x' WHERE id = 2", faulty=1, mended=DENIED),),
    ),
    Fault(
        name="Callers insert rows of others through a view, by a policy of its owner",
        group="openings",
        rule="view-without-invoker",
        objects=("public.written",),
        schema=DOCS
        + OWN_DOCS
        + """
RESET ROLE;
CREATE ROLE reporting;
GRANT USAGE, CREATE ON SCHEMA public TO reporting;
GRANT SELECT, INSERT ON docs TO reporting;
CREATE POLICY add ON docs FOR INSERT TO reporting WITH CHECK (true);
SET ROLE reporting;
CREATE VIEW written AS SELECT * FROM docs;
GRANT SELECT, INSERT ON written TO authenticated;
""",
        rows=DOCS_ROWS,
        mend="RESET ROLE; ALTER VIEW written SET (security_invoker = true);",
        shows=(Look(statement="INSERT INTO written VALUES (3, 'bob', 'c')", faulty=1, mended=DENIED),),
    ),
    Fault(
        name="Callers give rows away through a view that shows their own rows",
        group="openings",
        rule="view-without-invoker",
        objects=("public.own_docs",),
        schema=DOCS
        + OWN_DOCS
        + f"""
CREATE VIEW own_docs AS SELECT * FROM docs WHERE {OWN};
GRANT SELECT, UPDATE ON own_docs TO authenticated;
""",
        rows=DOCS_ROWS,
        mend=f"CREATE OR REPLACE VIEW own_docs AS SELECT * FROM docs WHERE {OWN} WITH CHECK OPTION;",
        shows=(Look(statement="UPDATE own_docs SET owner = 'bob'", faulty=1, mended="44000"),),
    ),
    beside_docs(
        name="A materialized view holds the rows of each owner",
        rule="materialized-view",
        objects=("public.counts",),
        schema="""
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
    beside_docs(
        name="A function that runs as its owner returns every row",
        rule="definer-reads-protected",
        objects=("public.all_docs()",),
        schema="""
CREATE FUNCTION all_docs() RETURNS SETOF docs LANGUAGE sql STABLE SECURITY DEFINER
  SET search_path = '' AS 'SELECT * FROM public.docs';
""",
        mend="REVOKE EXECUTE ON FUNCTION all_docs() FROM PUBLIC;",
        shows=(Look(statement="SELECT id FROM all_docs() ORDER BY id", faulty=[1, 2], mended=DENIED),),
    ),
    beside_docs(
        name="A function that runs as its owner takes the subject as an argument",
        rule="definer-reads-protected",
        objects=("public.docs_of(text)",),
        schema="""
CREATE FUNCTION docs_of(subject text) RETURNS SETOF docs LANGUAGE plpgsql STABLE SECURITY DEFINER
  SET search_path = '' AS $$ BEGIN RETURN QUERY SELECT * FROM public.docs WHERE owner = subject; END $$;
REVOKE EXECUTE ON FUNCTION docs_of(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION docs_of(text) TO authenticated;
""",
        mend="ALTER FUNCTION docs_of(text) SECURITY INVOKER;",
        shows=(Look(statement="SELECT id FROM docs_of('bob')", faulty=[2], mended=NOTHING),),
    ),
    beside_docs(
        name="A function that runs as its owner deletes rows of others",
        rule="definer-reads-protected",
        objects=("public.remove(integer)",),
        schema="""
CREATE FUNCTION remove(doc_id int) RETURNS SETOF int LANGUAGE sql SECURITY DEFINER
  SET search_path = '' AS 'DELETE FROM public.docs WHERE id = doc_id RETURNING id';
REVOKE EXECUTE ON FUNCTION remove(int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION remove(int) TO authenticated;
""",
        mend="""
CREATE OR REPLACE FUNCTION remove(doc_id int) RETURNS SETOF int LANGUAGE sql SECURITY DEFINER
  SET search_path = ''
  AS 'DELETE FROM public.docs WHERE id = doc_id AND owner = (SELECT auth.user_id()) RETURNING id';
""",
        shows=(Look(statement="SELECT remove(2)", faulty=[2], mended=NOTHING),),
    ),
    beside_docs(
        name="A trigger that runs as its owner copies documents of others",
        rule="definer-reads-protected",
        objects=("public.log_last()",),
        schema="""
CREATE TABLE notes (id int PRIMARY KEY, owner text NOT NULL, last_body text);
CREATE INDEX notes_owner ON notes (owner);
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT ON notes TO authenticated;
CREATE POLICY own ON notes TO authenticated
  USING (owner = (SELECT auth.user_id())) WITH CHECK (owner = (SELECT auth.user_id()));
CREATE FUNCTION log_last() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
  AS $$ BEGIN NEW.last_body := (SELECT body FROM public.docs ORDER BY id DESC LIMIT 1); RETURN NEW; END $$;
REVOKE EXECUTE ON FUNCTION log_last() FROM PUBLIC;
CREATE TRIGGER log_last BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION log_last();
""",
        mend="ALTER FUNCTION log_last() SECURITY INVOKER;",
        shows=(
            Look(
                statement="INSERT INTO notes VALUES (1, 'alice') RETURNING last_body",
                faulty=["b"],
                mended=["a"],
            ),
        ),
    ),
    _search_path("A function that runs as its owner finds a table of the caller's first"),
    _search_path(
        "The search_path of a function that runs as its owner doesn't end in pg_temp",
        " SET search_path = public",
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
    beside_docs(
        name="A child table is read past its parent",
        rule="partition-past-parent",
        objects=("public.old_docs",),
        schema="""
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
    beside_docs(
        name="Callers read a table without row security, beside a protected one",
        rule="table-without-row-security",
        objects=("public.invoices",),
        schema="""
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
