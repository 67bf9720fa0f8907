"""Faults that deny callers what a policy or a privilege means to permit."""

from __future__ import annotations

from typing import Final

from tests.analyze.lint.faults.case import (
    DENIED,
    DOCS,
    DOCS_ROWS,
    IDS,
    MEMBERS,
    NOTHING,
    ORG_DOCS,
    ORG_ROWS,
    OWN,
    OWN_DOCS,
    READ_OWN_DOCS,
    Caller,
    Fault,
    Look,
)

_DOCS: Final = ("public.docs",)


def _dead(
    name: str,
    rule: str,
    schema: str,
    mend: str,
    *shows: Look,
    objects: tuple[str, ...] = _DOCS,
    rows: str = DOCS_ROWS,
) -> Fault:
    return Fault(
        name=name,
        group="dead-ends",
        rule=rule,
        objects=objects,
        schema=schema,
        rows=rows,
        mend=mend,
        shows=shows,
    )


def _granted(privileges: str) -> str:
    return DOCS.replace("SELECT, INSERT, UPDATE, DELETE", privileges)


_INSERT: Final = "INSERT INTO docs VALUES (3, 'alice', 'c')"

_PRIVILEGES: Final = [
    _dead(
        "A policy for SELECT, without the privilege",
        "missing-privilege",
        _granted("INSERT")
        + OWN_DOCS.replace("ON docs TO", "ON docs FOR INSERT TO").replace(f"USING ({OWN}) ", "")
        + f"CREATE POLICY read ON docs FOR SELECT TO authenticated USING ({OWN});",
        "GRANT SELECT ON docs TO authenticated;",
        Look(statement=IDS, faulty=DENIED, mended=[1]),
    ),
    _dead(
        "A policy for INSERT, without the privilege",
        "missing-privilege",
        _granted("SELECT")
        + READ_OWN_DOCS
        + f"CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK ({OWN});",
        "GRANT INSERT ON docs TO authenticated;",
        Look(statement=_INSERT, faulty=DENIED, mended=1),
    ),
    _dead(
        "A policy for DELETE of a second role, without the privilege",
        "missing-privilege",
        _granted("SELECT, DELETE")
        + "RESET ROLE; CREATE ROLE editor; GRANT editor TO app_login; SET LOCAL ROLE app_owner;"
        + "GRANT SELECT ON docs TO editor;"
        + OWN_DOCS.replace("TO authenticated", "TO authenticated, editor"),
        "GRANT INSERT, UPDATE, DELETE ON docs TO editor; GRANT INSERT, UPDATE ON docs TO authenticated;",
        Look(statement="DELETE FROM docs", faulty=DENIED, mended=1, caller=Caller(role="editor")),
    ),
    _dead(
        "A policy reads a table that callers may not read",
        "missing-privilege",
        MEMBERS.replace("GRANT SELECT ON members TO authenticated;", "")
        + ORG_DOCS
        + """
CREATE POLICY team ON docs FOR SELECT TO authenticated USING (
  org_id = ANY (ARRAY(SELECT m.org_id FROM members AS m WHERE m.user_id = (SELECT auth.user_id()))));
""",
        "GRANT SELECT ON members TO authenticated;",
        Look(statement=IDS, faulty=DENIED, mended=[1]),
        rows=ORG_ROWS,
        objects=(*_DOCS, "public.members"),
    ),
    _dead(
        "A policy calls a function that callers may not execute",
        "missing-privilege",
        _granted("SELECT")
        + """
CREATE FUNCTION me() RETURNS text LANGUAGE sql STABLE AS 'SELECT auth.user_id()';
REVOKE EXECUTE ON FUNCTION me() FROM PUBLIC;
CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner = (SELECT me()));
""",
        "GRANT EXECUTE ON FUNCTION me() TO authenticated;",
        Look(statement=IDS, faulty=DENIED, mended=[1]),
        objects=(*_DOCS, "public.me()"),
    ),
    _dead(
        "Callers may not use the schema of the table",
        "missing-privilege",
        """
RESET ROLE; CREATE SCHEMA app AUTHORIZATION app_owner; SET LOCAL ROLE app_owner;
CREATE TABLE app.docs (id int PRIMARY KEY, owner text NOT NULL);
CREATE INDEX docs_owner ON app.docs (owner);
ALTER TABLE app.docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON app.docs TO authenticated;
CREATE POLICY own ON app.docs FOR SELECT TO authenticated USING (owner = (SELECT auth.user_id()));
""",
        "GRANT USAGE ON SCHEMA app TO authenticated;",
        Look(statement="SELECT id FROM app.docs", faulty=DENIED, mended=[1]),
        objects=("app", "app.docs"),
        rows="INSERT INTO app.docs VALUES (1, 'alice'), (2, 'bob');",
    ),
    _dead(
        "A privilege without a policy",
        "privilege-without-policy",
        _granted("SELECT, DELETE") + READ_OWN_DOCS,
        f"CREATE POLICY away ON docs FOR DELETE TO authenticated USING ({OWN});",
        Look(statement="DELETE FROM docs WHERE id = 1", faulty=0, mended=1),
    ),
    _dead(
        "A privilege for one role, and the policy for another one",
        "privilege-without-policy",
        _granted("SELECT")
        + READ_OWN_DOCS
        + "RESET ROLE; CREATE ROLE support; GRANT support TO app_login; SET LOCAL ROLE app_owner;"
        + "GRANT SELECT ON docs TO support;",
        "CREATE POLICY help ON docs FOR SELECT TO support USING (body = 'b');",
        Look(statement=IDS, faulty=NOTHING, mended=[2], caller=Caller(role="support")),
    ),
    _dead(
        "Callers may not use the sequence of a serial column",
        "missing-sequence-privilege",
        DOCS.replace("id int", "id serial") + OWN_DOCS,
        "GRANT USAGE ON SEQUENCE docs_id_seq TO authenticated;",
        Look(statement="INSERT INTO docs (owner) VALUES ('alice')", faulty=DENIED, mended=1),
        rows="INSERT INTO docs (owner) VALUES ('alice'), ('bob');",
        objects=("public.docs_id_seq", *_DOCS),
    ),
    _dead(
        "Callers may not use a sequence of another schema in a default",
        "missing-sequence-privilege",
        "RESET ROLE; CREATE SCHEMA numbers AUTHORIZATION app_owner; SET LOCAL ROLE app_owner;"
        "CREATE SEQUENCE numbers.doc_number; GRANT USAGE ON SCHEMA numbers TO authenticated;"
        + DOCS.replace("body text", "body text, number bigint DEFAULT nextval('numbers.doc_number')")
        + OWN_DOCS,
        "GRANT USAGE ON SEQUENCE numbers.doc_number TO authenticated;",
        Look(statement=_INSERT, faulty=DENIED, mended=1),
        objects=("numbers.doc_number", *_DOCS),
    ),
]

_COMMANDS: Final = [
    _dead(
        "A policy for UPDATE, and none for SELECT",
        "write-without-select",
        _granted("SELECT, UPDATE")
        + f"CREATE POLICY edit ON docs FOR UPDATE TO authenticated USING ({OWN}) WITH CHECK ({OWN});",
        READ_OWN_DOCS,
        Look(statement="UPDATE docs SET body = 'x' WHERE id = 1", faulty=0, mended=1),
    ),
    _dead(
        "A policy for DELETE, without the privilege to SELECT",
        "write-without-select",
        _granted("DELETE") + f"CREATE POLICY away ON docs FOR DELETE TO authenticated USING ({OWN});",
        "GRANT SELECT ON docs TO authenticated;" + READ_OWN_DOCS,
        Look(statement="DELETE FROM docs WHERE id = 1", faulty=DENIED, mended=1),
    ),
    _dead(
        "INSERT … RETURNING without a policy for SELECT",
        "returning-without-select",
        _granted("SELECT, INSERT")
        + f"CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK ({OWN});",
        READ_OWN_DOCS,
        Look(statement=f"{_INSERT} RETURNING id", faulty=DENIED, mended=[3]),
    ),
    _dead(
        "INSERT … RETURNING without the privilege to SELECT",
        "returning-without-select",
        _granted("INSERT") + f"CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK ({OWN});",
        "GRANT SELECT ON docs TO authenticated;" + READ_OWN_DOCS,
        Look(statement=f"{_INSERT} RETURNING id", faulty=DENIED, mended=[3]),
    ),
    _dead(
        "The founder of an organization can't read it, until they are a member",
        "returning-without-select",
        MEMBERS
        + """
CREATE TABLE orgs (id int PRIMARY KEY, created_by text NOT NULL DEFAULT auth.user_id());
CREATE INDEX orgs_created_by ON orgs (created_by);
ALTER TABLE orgs ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT ON orgs TO authenticated;
CREATE POLICY add ON orgs FOR INSERT TO authenticated WITH CHECK (created_by = (SELECT auth.user_id()));
CREATE POLICY team ON orgs FOR SELECT TO authenticated USING (
  id = ANY (ARRAY(SELECT m.org_id FROM members AS m WHERE m.user_id = (SELECT auth.user_id()))));
""",
        """
ALTER POLICY team ON orgs USING (created_by = (SELECT auth.user_id()) OR
  id = ANY (ARRAY(SELECT m.org_id FROM members AS m WHERE m.user_id = (SELECT auth.user_id()))));
""",
        Look(statement="INSERT INTO orgs (id) VALUES (30) RETURNING id", faulty=DENIED, mended=[30]),
        rows="INSERT INTO members VALUES ('alice', 10);",
        objects=("public.orgs",),
    ),
    _dead(
        "A soft delete hides the row from the caller who deletes it",
        "update-hides-row",
        f"""
CREATE TABLE docs (id int PRIMARY KEY, owner text NOT NULL, deleted_at timestamptz);
CREATE INDEX docs_owner ON docs (owner);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT, UPDATE ON docs TO authenticated;
CREATE POLICY read ON docs FOR SELECT TO authenticated USING ({OWN} AND deleted_at IS NULL);
CREATE POLICY edit ON docs FOR UPDATE TO authenticated USING ({OWN}) WITH CHECK ({OWN});
""",
        f"ALTER POLICY read ON docs USING ({OWN});",
        Look(statement="UPDATE docs SET deleted_at = now() WHERE id = 1", faulty=DENIED, mended=1),
        rows="INSERT INTO docs VALUES (1, 'alice'), (2, 'bob');",
    ),
]

_SHARES: Final = """
CREATE TABLE shares (doc_id int, user_id text, PRIMARY KEY (user_id, doc_id));
CREATE INDEX shares_doc ON shares (doc_id);
ALTER TABLE shares ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON shares TO authenticated;
"""

_ERRORS: Final = [
    _dead(
        "A policy of members reads members",
        "recursion",
        MEMBERS.replace(
            "user_id = (SELECT auth.user_id())",
            "org_id IN (SELECT m.org_id FROM members AS m WHERE m.user_id = (SELECT auth.user_id()))",
        ),
        "ALTER POLICY mine ON members USING (user_id = (SELECT auth.user_id()));",
        Look(statement="SELECT org_id FROM members", faulty="42P17", mended=[10]),
        rows="INSERT INTO members VALUES ('alice', 10), ('bob', 20);",
        objects=("public.members",),
    ),
    _dead(
        "Two tables' policies read each other",
        "recursion",
        _SHARES
        + _granted("SELECT")
        + f"""
CREATE POLICY shared ON docs FOR SELECT TO authenticated USING ({OWN} OR
  id = ANY (ARRAY(SELECT s.doc_id FROM shares AS s WHERE s.user_id = (SELECT auth.user_id()))));
CREATE POLICY mine ON shares FOR SELECT TO authenticated USING (user_id = (SELECT auth.user_id())
  OR doc_id = ANY (ARRAY(SELECT d.id FROM docs AS d WHERE d.owner = (SELECT auth.user_id()))));
""",
        "ALTER POLICY mine ON shares USING (user_id = (SELECT auth.user_id()));",
        Look(statement=IDS, faulty="42P17", mended=[1, 2]),
        rows=DOCS_ROWS + "INSERT INTO shares VALUES (2, 'alice');",
        objects=("public.docs", "public.shares"),
    ),
    _dead(
        "A policy reads a view that reads its own table",
        "recursion",
        _granted("SELECT")
        + f"""
CREATE VIEW own_ids WITH (security_invoker = true) AS SELECT id FROM docs WHERE owner = auth.user_id();
GRANT SELECT ON own_ids TO authenticated;
CREATE POLICY own ON docs FOR SELECT TO authenticated USING ({OWN} OR id IN (SELECT o.id FROM own_ids AS o));
""",
        f"ALTER POLICY own ON docs USING ({OWN});",
        Look(statement=IDS, faulty="42P17", mended=[1]),
    ),
    _dead(
        "A subject that isn't a number ends in an error",
        "error-for-some-callers",
        """
CREATE TABLE docs (id int PRIMARY KEY, owner_id int NOT NULL);
CREATE INDEX docs_owner_id ON docs (owner_id);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON docs TO authenticated;
CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()::int));
""",
        """
ALTER POLICY own ON docs USING (owner_id = (SELECT CASE
  WHEN pg_input_is_valid(auth.user_id(), 'int') THEN auth.user_id()::int END));
""",
        Look(statement=IDS, faulty="22P02", mended=NOTHING),
        Look(statement=IDS, faulty=[1], mended=[1], caller=Caller(claims={"sub": "7"})),
        rows="INSERT INTO docs VALUES (1, 7);",
    ),
    _dead(
        "A subject that isn't a uuid ends in an error",
        "error-for-some-callers",
        """
CREATE TABLE docs (id int PRIMARY KEY, owner_id uuid NOT NULL);
CREATE INDEX docs_owner_id ON docs (owner_id);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON docs TO authenticated;
CREATE POLICY own ON docs FOR SELECT TO authenticated
  USING (owner_id = (SELECT (auth.jwt() ->> 'sub')::uuid));
""",
        "ALTER POLICY own ON docs USING (owner_id = (SELECT auth.uid()));",
        Look(statement=IDS, faulty="22P02", mended=NOTHING),
        rows="INSERT INTO docs VALUES (1, '00000000-0000-0000-0000-00000000000a');",
    ),
    _dead(
        "A setting that a caller lacks ends in an error",
        "error-for-some-callers",
        _granted("SELECT") + "CREATE POLICY own ON docs FOR SELECT TO authenticated "
        "USING (owner = current_setting('app.subject'));",
        "ALTER POLICY own ON docs USING (owner = current_setting('app.subject', true));",
        Look(statement=IDS, faulty="42704", mended=NOTHING),
        Look(statement=IDS, faulty=[1], mended=[1], caller=Caller(settings={"app.subject": "alice"})),
    ),
    _dead(
        "A setting that is empty after the first transaction ends in an error",
        "error-for-some-callers",
        """
CREATE TABLE docs (id int PRIMARY KEY, tenant_id int NOT NULL);
CREATE INDEX docs_tenant_id ON docs (tenant_id);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON docs TO authenticated;
CREATE POLICY tenant ON docs FOR SELECT TO authenticated
  USING (tenant_id = (SELECT current_setting('app.tenant', true)::int));
""",
        """
ALTER POLICY tenant ON docs USING (tenant_id = (SELECT nullif(current_setting('app.tenant', true), '')::int));
""",
        Look(statement=IDS, faulty="22P02", mended=NOTHING, caller=Caller(settings={"app.tenant": ""})),
        rows="INSERT INTO docs VALUES (1, 7);",
    ),
    _dead(
        "A member of two organizations gets an error",
        "error-for-some-callers",
        MEMBERS
        + ORG_DOCS
        + """
CREATE POLICY team ON docs FOR SELECT TO authenticated USING (
  org_id = (SELECT m.org_id FROM members AS m WHERE m.user_id = (SELECT auth.user_id())));
""",
        """
ALTER POLICY team ON docs USING (
  org_id = ANY (ARRAY(SELECT m.org_id FROM members AS m WHERE m.user_id = (SELECT auth.user_id()))));
""",
        Look(statement=IDS, faulty="21000", mended=[1, 2]),
        rows=ORG_ROWS + "INSERT INTO members VALUES ('alice', 20);",
    ),
    _dead(
        "A claim that isn't a list ends in an error",
        "error-for-some-callers",
        """
CREATE TABLE docs (id int PRIMARY KEY, org text NOT NULL);
CREATE INDEX docs_org ON docs (org);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON docs TO authenticated;
CREATE POLICY team ON docs FOR SELECT TO authenticated
  USING (org = ANY (ARRAY(SELECT jsonb_array_elements_text(auth.jwt() -> 'orgs'))));
""",
        """
ALTER POLICY team ON docs USING (org = ANY (ARRAY(SELECT jsonb_array_elements_text(
  CASE jsonb_typeof(auth.jwt() -> 'orgs') WHEN 'array' THEN auth.jwt() -> 'orgs' END))));
""",
        Look(
            statement=IDS,
            faulty="22023",
            mended=NOTHING,
            caller=Caller(claims={"sub": "alice", "orgs": "acme"}),
        ),
        Look(statement=IDS, faulty=[1], mended=[1], caller=Caller(claims={"orgs": ["acme"]})),
        rows="INSERT INTO docs VALUES (1, 'acme'), (2, 'other');",
    ),
]

_FROZEN: Final = [
    _dead(
        "The time at which the policy was made takes the place of the present",
        "frozen-moment",
        """
CREATE TABLE docs (id int PRIMARY KEY, expires_at timestamptz NOT NULL);
CREATE INDEX docs_expires_at ON docs (expires_at);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON docs TO authenticated;
CREATE POLICY valid ON docs FOR SELECT TO authenticated USING (expires_at > 'now'::timestamptz);
""",
        "ALTER POLICY valid ON docs USING (expires_at > statement_timestamp());",
        # The document expires after the policy was made, and before it is read.
        Look(statement="SELECT id FROM docs", first=("SELECT pg_sleep(0.02)",), faulty=[1], mended=NOTHING),
        rows="INSERT INTO docs VALUES (1, now() + interval '0.001 s');",
    ),
    _dead(
        "A document that is published after the policy was made stays hidden",
        "frozen-moment",
        """
CREATE TABLE docs (id int PRIMARY KEY, published_at timestamptz NOT NULL);
CREATE INDEX docs_published_at ON docs (published_at);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON docs TO authenticated;
CREATE POLICY valid ON docs FOR SELECT TO authenticated USING (published_at <= timestamptz 'now');
""",
        "ALTER POLICY valid ON docs USING (published_at <= statement_timestamp());",
        Look(statement=IDS, first=("SELECT pg_sleep(0.02)",), faulty=NOTHING, mended=[1]),
        rows="INSERT INTO docs VALUES (1, now() + interval '0.001 s');",
    ),
    _dead(
        "A function says IMMUTABLE, and a prepared statement keeps the caller who ran it first",
        "frozen-caller",
        _granted("SELECT")
        + """
CREATE FUNCTION me() RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN auth.user_id(); END';
CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner = me());
""",
        "ALTER FUNCTION me() STABLE; ALTER POLICY own ON docs USING (owner = (SELECT me()));",
        Look(
            statement="EXECUTE all_docs",
            first=(
                "SET LOCAL plan_cache_mode = force_generic_plan",
                "DEALLOCATE ALL",
                "PREPARE all_docs AS SELECT id FROM docs",
                "EXECUTE all_docs",
                """SELECT set_config('request.jwt.claims', '{"sub": "bob"}', true)""",
            ),
            faulty=[1],
            mended=[2],
        ),
        objects=(*_DOCS, "public.me()"),
    ),
]

_BOUND: Final = [
    _dead(
        "A policy is for a role that no caller is bound to",
        "unbound-role",
        _granted("SELECT")
        + "RESET ROLE; CREATE ROLE editors; SET LOCAL ROLE app_owner;"
        + READ_OWN_DOCS
        + """
GRANT SELECT, UPDATE ON docs TO editors;
CREATE POLICY edit ON docs TO editors USING (body = 'b') WITH CHECK (body = 'b');
""",
        "RESET ROLE; GRANT editors TO app_login; GRANT INSERT, DELETE ON docs TO editors;",
        Look(
            statement=IDS,
            first=("SET ROLE editors",),
            faulty=DENIED,
            mended=[2],
            caller=Caller(role=None, login="app_login"),
        ),
    ),
    _dead(
        "A policy is for the login role, in the place of the role of callers",
        "unbound-role",
        _granted("SELECT")
        + "GRANT SELECT ON docs TO app_login;"
        + f"CREATE POLICY own ON docs FOR SELECT TO app_login USING ({OWN});",
        "REVOKE SELECT ON docs FROM app_login; ALTER POLICY own ON docs TO authenticated;",
        Look(statement=IDS, faulty=NOTHING, mended=[1]),
    ),
]

FAULTS: Final = [*_PRIVILEGES, *_COMMANDS, *_ERRORS, *_FROZEN, *_BOUND]
