"""Faults that open rows to callers."""

from __future__ import annotations

from typing import Final

from tests.analyze.lint.faults.case import (
    ALICE,
    ANONYMOUS,
    AS_ALICE,
    DENIED,
    DOCS,
    DOCS_ROWS,
    IDS,
    MEMBERS,
    MEND_ORGS,
    ORG_DOCS,
    ORG_ROWS,
    OWN,
    READ_DOCS,
    READ_OWN_DOCS,
    UNCLAIMED,
    Caller,
    Fault,
    Look,
)

_DOCS: Final = ("public.docs",)
_ALL_FOR_ALICE: Final = (Look(statement=IDS, faulty=[1, 2], mended=[1]),)
_LOGIN: Final = Caller(role=None, claims=None, login="app_login")


def _open(
    name: str, using: str, *, helpers: str = "", caller: Caller = UNCLAIMED, rule: str = "no-subject"
) -> Fault:
    """A SELECT policy that admits every row."""
    return Fault(
        name=name,
        group="openings",
        rule=rule,
        objects=_DOCS,
        schema=READ_DOCS
        + helpers
        + f"CREATE POLICY own ON docs FOR SELECT TO authenticated USING ({using});",
        rows=DOCS_ROWS,
        mend=f"ALTER POLICY own ON docs USING ({OWN});",
        shows=(Look(statement=IDS, faulty=[1, 2], mended=[1] if caller.claims else [], caller=caller),),
    )


_READS: Final = [
    Fault(
        name="The anonymous role reads every row",
        group="openings",
        rule="everyone-reads",
        objects=_DOCS,
        schema=READ_DOCS
        + READ_OWN_DOCS
        + """
GRANT SELECT ON docs TO anonymous;
CREATE POLICY all_rows ON docs FOR SELECT TO anonymous USING (true);
""",
        rows=DOCS_ROWS,
        mend="DROP POLICY all_rows ON docs; REVOKE SELECT ON docs FROM anonymous;",
        shows=(Look(statement=IDS, faulty=[1, 2], mended=DENIED, caller=ANONYMOUS),),
    ),
    Fault(
        name="A policy without TO is for the anonymous role, too",
        group="openings",
        rule="everyone-reads",
        objects=_DOCS,
        schema=READ_DOCS
        + """
GRANT SELECT ON docs TO anonymous;
CREATE POLICY own ON docs FOR SELECT USING (id > 0 OR true);
""",
        rows=DOCS_ROWS,
        mend=f"""
ALTER POLICY own ON docs TO authenticated USING ({OWN});
REVOKE SELECT ON docs FROM anonymous;
""",
        shows=(Look(statement=IDS, faulty=[1, 2], mended=DENIED, caller=ANONYMOUS),),
    ),
    _open(
        "A caller without a subject reads every row",
        "(SELECT auth.user_id()) IS NULL OR owner = (SELECT auth.user_id())",
    ),
    _open(
        "A caller without a subject takes the place of each owner",
        "owner = coalesce((SELECT auth.user_id()), owner)",
    ),
    _open(
        "A comparison that is false of the owner alone, beside one for a caller without a subject",
        "nullif(owner, (SELECT auth.user_id())) IS DISTINCT FROM owner OR (SELECT auth.user_id()) IS NULL",
    ),
    _open(
        "NOT IN a list of the banned admits a caller without a subject",
        "(SELECT auth.user_id()) = owner OR coalesce((SELECT auth.user_id()), '') NOT IN ('alice', 'bob')",
    ),
    _open(
        "CASE whose ELSE is true",
        "CASE WHEN (SELECT auth.user_id()) IS NOT NULL THEN owner = (SELECT auth.user_id()) ELSE true END",
    ),
    _open(
        "A function that the policy calls returns true",
        "is_mine(owner)",
        helpers="CREATE FUNCTION is_mine(text) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT true';\n",
        caller=AS_ALICE,
        rule="everyone-reads",
    ),
    _open(
        "A comparison of a column with itself",
        "owner = docs.owner",
        caller=AS_ALICE,
        rule="everyone-reads",
    ),
    Fault(
        name="Permissive in the place of restrictive: the condition of a tenant is joined by OR",
        group="openings",
        rule="everyone-reads",
        objects=_DOCS,
        schema=READ_DOCS
        + READ_OWN_DOCS
        + """
GRANT SELECT ON docs TO anonymous;
CREATE POLICY known ON docs FOR SELECT USING (owner IS NOT NULL);
""",
        rows=DOCS_ROWS,
        mend="DROP POLICY known ON docs; REVOKE SELECT ON docs FROM anonymous;",
        shows=(
            Look(statement=IDS, faulty=[1, 2], mended=[1]),
            Look(statement=IDS, faulty=[1, 2], mended=DENIED, caller=ANONYMOUS),
        ),
    ),
]

_WRITES: Final = [
    Fault(
        name="DELETE of every row",
        group="openings",
        rule="everyone-writes",
        objects=_DOCS,
        schema=DOCS
        + READ_OWN_DOCS
        + f"""
CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK ({OWN});
CREATE POLICY edit ON docs FOR UPDATE TO authenticated USING ({OWN}) WITH CHECK ({OWN});
CREATE POLICY away ON docs FOR DELETE TO authenticated USING (true);
""",
        rows=DOCS_ROWS,
        mend=f"ALTER POLICY away ON docs USING ({OWN});",
        shows=(Look(statement="DELETE FROM docs", faulty=2, mended=1),),
    ),
    Fault(
        name="UPDATE of every row",
        group="openings",
        rule="everyone-writes",
        objects=_DOCS,
        schema=DOCS
        + READ_OWN_DOCS
        + f"""
CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK ({OWN});
CREATE POLICY edit ON docs FOR UPDATE TO authenticated USING (true) WITH CHECK (true);
CREATE POLICY away ON docs FOR DELETE TO authenticated USING ({OWN});
""",
        rows=DOCS_ROWS,
        mend=f"ALTER POLICY edit ON docs USING ({OWN}) WITH CHECK ({OWN});",
        shows=(Look(statement="UPDATE docs SET body = 'mine'", faulty=2, mended=1),),
    ),
    Fault(
        name="WITH CHECK (true) beside USING of own rows",
        group="openings",
        rule="check-wider-than-using",
        objects=_DOCS,
        schema=DOCS + f"CREATE POLICY own ON docs TO authenticated USING ({OWN}) WITH CHECK (true);",
        rows=DOCS_ROWS,
        mend=f"ALTER POLICY own ON docs WITH CHECK ({OWN});",
        shows=(Look(statement="INSERT INTO docs VALUES (3, 'bob', 'x')", faulty=1, mended=DENIED),),
    ),
    Fault(
        name="WITH CHECK asks for any owner",
        group="openings",
        rule="check-wider-than-using",
        objects=_DOCS,
        schema=DOCS
        + READ_OWN_DOCS
        + f"""
CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK ({OWN});
CREATE POLICY edit ON docs FOR UPDATE TO authenticated USING ({OWN}) WITH CHECK (owner <> '');
CREATE POLICY away ON docs FOR DELETE TO authenticated USING ({OWN});
""",
        rows=DOCS_ROWS,
        mend=f"ALTER POLICY edit ON docs WITH CHECK ({OWN});",
        # Without a column in WHERE or RETURNING, the SELECT policy has no say about the new row.
        shows=(Look(statement="UPDATE docs SET owner = 'bob'", faulty=1, mended=DENIED),),
    ),
    Fault(
        name="WITH CHECK forgets the organization",
        group="openings",
        rule="check-wider-than-using",
        objects=_DOCS,
        schema="""
CREATE TABLE docs (id int PRIMARY KEY, org text NOT NULL, owner text NOT NULL);
CREATE INDEX docs_owner ON docs (owner);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO authenticated;
CREATE POLICY own ON docs TO authenticated
  USING (owner = (SELECT auth.user_id()) AND org = (SELECT auth.jwt() ->> 'org'))
  WITH CHECK (owner = (SELECT auth.user_id()));
""",
        rows="INSERT INTO docs VALUES (1, 'acme', 'alice'), (2, 'other', 'bob');",
        mend="""
ALTER POLICY own ON docs
  WITH CHECK (owner = (SELECT auth.user_id()) AND org = (SELECT auth.jwt() ->> 'org'));
""",
        shows=(
            Look(
                statement="INSERT INTO docs VALUES (3, 'other', 'alice')",
                faulty=1,
                mended=DENIED,
                caller=Caller(claims={"sub": "alice", "org": "acme"}),
            ),
        ),
    ),
    Fault(
        name="An organization is checked, but the document can be given to another member",
        group="openings",
        rule="check-wider-than-using",
        objects=_DOCS,
        schema="""
CREATE TABLE docs (id int PRIMARY KEY, org text NOT NULL, owner text NOT NULL);
CREATE INDEX docs_owner ON docs (owner);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT, UPDATE ON docs TO authenticated;
CREATE POLICY own ON docs TO authenticated
  USING (owner = (SELECT auth.user_id()) AND org = (SELECT auth.jwt() ->> 'org'))
  WITH CHECK (org = (SELECT auth.jwt() ->> 'org'));
""",
        rows="INSERT INTO docs VALUES (1, 'acme', 'alice'), (2, 'acme', 'bob');",
        mend="""
ALTER POLICY own ON docs
  WITH CHECK (owner = (SELECT auth.user_id()) AND org = (SELECT auth.jwt() ->> 'org'));
""",
        shows=(
            Look(
                statement="UPDATE docs SET owner = 'bob'",
                faulty=1,
                mended=DENIED,
                caller=Caller(claims={"sub": "alice", "org": "acme"}),
            ),
        ),
    ),
    Fault(
        name="A default names the caller, and WITH CHECK lets them name another owner",
        group="openings",
        rule="default-names-owner",
        objects=_DOCS,
        schema="""
CREATE TABLE docs (id int PRIMARY KEY, owner text NOT NULL DEFAULT auth.user_id(), body text);
CREATE INDEX docs_owner ON docs (owner);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT ON docs TO authenticated;
CREATE POLICY read ON docs FOR SELECT TO authenticated USING (owner = (SELECT auth.user_id()));
CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK ((SELECT auth.user_id()) IS NOT NULL);
""",
        rows=DOCS_ROWS,
        mend=f"ALTER POLICY add ON docs WITH CHECK ({OWN});",
        shows=(
            Look(statement="INSERT INTO docs (id, owner) VALUES (3, 'bob')", faulty=1, mended=DENIED),
            Look(statement="INSERT INTO docs (id) VALUES (3)", faulty=1, mended=1),
        ),
    ),
    Fault(
        name="Each caller may insert rows of each owner",
        group="openings",
        rule="default-names-owner",
        objects=_DOCS,
        schema="""
CREATE TABLE docs (id int PRIMARY KEY, tenant uuid NOT NULL DEFAULT auth.uid(), body text);
CREATE INDEX docs_tenant ON docs (tenant);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT ON docs TO authenticated;
CREATE POLICY read ON docs FOR SELECT TO authenticated USING (tenant = (SELECT auth.uid()));
CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK (true);
""",
        rows="INSERT INTO docs VALUES (1, '00000000-0000-0000-0000-00000000000b', 'b');",
        mend="ALTER POLICY add ON docs WITH CHECK (tenant = (SELECT auth.uid()));",
        shows=(
            Look(
                statement="INSERT INTO docs VALUES (3, '00000000-0000-0000-0000-00000000000b', 'x')",
                faulty=1,
                mended=DENIED,
                caller=Caller(claims={"sub": "00000000-0000-0000-0000-00000000000a"}),
            ),
        ),
    ),
]


def _team(name: str, rule: str, using: str, *, members: str = MEMBERS, rows: str = ORG_ROWS) -> Fault:
    """A SELECT policy of organizations that admits the rows of other organizations."""
    return Fault(
        name=name,
        group="openings",
        rule=rule,
        objects=_DOCS,
        schema=members
        + ORG_DOCS
        + f"CREATE POLICY team ON docs FOR SELECT TO authenticated USING ({using});",
        rows=rows,
        mend=MEND_ORGS,
        shows=_ALL_FOR_ALICE,
    )


#: Members of one organization see each other, by a function that runs as its owner.
_ALL_MEMBERS: Final = """
CREATE TABLE members (user_id text, org_id int, PRIMARY KEY (user_id, org_id));
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON members TO authenticated;
CREATE POLICY directory ON members FOR SELECT TO authenticated USING (true);
"""

_MEMBERSHIPS: Final = [
    _team(
        "A membership test without the caller, by IN",
        "membership-without-caller",
        "org_id IN (SELECT m.org_id FROM members AS m)",
        members=_ALL_MEMBERS,
    ),
    _team(
        "A membership test without the caller, by EXISTS",
        "membership-without-caller",
        "EXISTS (SELECT FROM members AS m WHERE m.org_id = docs.org_id)",
        members=_ALL_MEMBERS,
    ),
    Fault(
        name="A membership test without the caller, in a function that runs as its owner",
        group="openings",
        rule="definer-reads-protected",
        objects=(*_DOCS, "public.team_ids()"),
        schema=MEMBERS
        + ORG_DOCS
        + """
CREATE FUNCTION team_ids() RETURNS SETOF int LANGUAGE sql STABLE SECURITY DEFINER
  SET search_path = '' AS 'SELECT m.org_id FROM public.members AS m';
REVOKE EXECUTE ON FUNCTION team_ids() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION team_ids() TO authenticated;
CREATE POLICY team ON docs FOR SELECT TO authenticated USING (org_id = ANY (ARRAY(SELECT team_ids())));
""",
        rows=ORG_ROWS,
        mend="""
CREATE OR REPLACE FUNCTION team_ids() RETURNS SETOF int LANGUAGE sql STABLE SECURITY DEFINER
  SET search_path = ''
  AS 'SELECT m.org_id FROM public.members AS m WHERE m.user_id = (SELECT auth.user_id())';
""",
        shows=_ALL_FOR_ALICE,
    ),
    _team(
        "A column in a subquery binds to the inner table: each member reads all organizations",
        "wrong-correlation",
        "EXISTS (SELECT FROM members AS m WHERE m.org_id = org_id AND m.user_id = (SELECT auth.user_id()))",
    ),
    Fault(
        name="A subquery compares the key of the inner table with itself",
        group="openings",
        rule="wrong-correlation",
        objects=_DOCS,
        schema="""
CREATE TABLE shares (id int PRIMARY KEY, doc_id int NOT NULL, user_id text NOT NULL);
CREATE INDEX shares_user ON shares (user_id);
ALTER TABLE shares ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON shares TO authenticated;
CREATE POLICY mine ON shares FOR SELECT TO authenticated USING (user_id = (SELECT auth.user_id()));
CREATE TABLE docs (id int PRIMARY KEY, body text);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON docs TO authenticated;
CREATE POLICY shared ON docs FOR SELECT TO authenticated USING (
  EXISTS (SELECT FROM shares AS s WHERE s.id = id AND s.user_id = (SELECT auth.user_id())));
""",
        rows="INSERT INTO shares VALUES (7, 1, 'alice'); INSERT INTO docs VALUES (1, 'a'), (2, 'b');",
        mend="""
ALTER POLICY shared ON docs USING (
  id = ANY (ARRAY(SELECT s.doc_id FROM shares AS s WHERE s.user_id = (SELECT auth.user_id()))));
""",
        shows=_ALL_FOR_ALICE,
    ),
    Fault(
        name="A member may add themselves to any organization",
        group="openings",
        rule="self-granted",
        objects=("public.members", "public.docs"),
        schema=MEMBERS
        + ORG_DOCS
        + f"""
GRANT INSERT ON members TO authenticated;
CREATE POLICY join_org ON members FOR INSERT TO authenticated WITH CHECK (user_id = (SELECT auth.user_id()));
CREATE POLICY team ON docs FOR SELECT TO authenticated USING ({MEND_ORGS.partition("USING (")[2][:-2]});
""",
        rows=ORG_ROWS,
        mend="DROP POLICY join_org ON members; REVOKE INSERT ON members FROM authenticated;",
        shows=(Look(statement="INSERT INTO members VALUES ('alice', 20)", faulty=1, mended=DENIED),),
    ),
    Fault(
        name="Users write the column that makes them administrators",
        group="openings",
        rule="self-granted",
        objects=("public.profiles", "public.docs"),
        schema=DOCS
        + """
CREATE TABLE profiles (user_id text PRIMARY KEY, name text, is_admin boolean NOT NULL DEFAULT false);
ALTER TABLE profiles ENABLE ROW LEVEL SECURITY;
GRANT SELECT, UPDATE ON profiles TO authenticated;
CREATE POLICY own ON profiles TO authenticated
  USING (user_id = (SELECT auth.user_id())) WITH CHECK (user_id = (SELECT auth.user_id()));
CREATE POLICY admin ON docs TO authenticated USING (
  owner = (SELECT auth.user_id())
  OR (SELECT p.is_admin FROM profiles AS p WHERE p.user_id = (SELECT auth.user_id())));
""",
        rows=DOCS_ROWS + "INSERT INTO profiles VALUES ('alice', 'Alice', false);",
        mend="""
REVOKE UPDATE ON profiles FROM authenticated;
GRANT UPDATE (name) ON profiles TO authenticated;
""",
        shows=(Look(statement="UPDATE profiles SET is_admin = true", faulty=1, mended=DENIED),),
    ),
    Fault(
        name="A claim that users write themselves: user_metadata",
        group="openings",
        rule="writable-claims",
        objects=_DOCS,
        schema=READ_DOCS
        + READ_OWN_DOCS
        + """
CREATE POLICY admin ON docs FOR SELECT TO authenticated
  USING ((SELECT auth.jwt() -> 'user_metadata' ->> 'role') = 'admin');
""",
        rows=DOCS_ROWS,
        mend="""
ALTER POLICY admin ON docs USING ((SELECT auth.jwt() -> 'app_metadata' ->> 'role') = 'admin');
""",
        shows=(
            Look(
                statement=IDS,
                faulty=[1, 2],
                mended=[1],
                caller=Caller(claims={**ALICE, "user_metadata": {"role": "admin"}}),
            ),
        ),
    ),
    Fault(
        name="A claim that users write themselves, in a function",
        group="openings",
        rule="writable-claims",
        objects=(*_DOCS, "public.is_admin()"),
        schema=READ_DOCS
        + """
CREATE FUNCTION is_admin() RETURNS boolean LANGUAGE sql STABLE
  AS $$ SELECT coalesce((auth.jwt() #>> '{user_metadata,is_admin}')::boolean, false) $$;
CREATE POLICY own ON docs FOR SELECT TO authenticated
  USING (owner = (SELECT auth.user_id()) OR (SELECT is_admin()));
""",
        rows=DOCS_ROWS,
        mend="""
CREATE OR REPLACE FUNCTION is_admin() RETURNS boolean LANGUAGE sql STABLE
  AS $$ SELECT coalesce((auth.jwt() #>> '{app_metadata,is_admin}')::boolean, false) $$;
""",
        shows=(
            Look(
                statement=IDS,
                faulty=[1, 2],
                mended=[1],
                caller=Caller(claims={**ALICE, "user_metadata": {"is_admin": True}}),
            ),
        ),
    ),
]

FAULTS: Final = [*_READS, *_WRITES, *_MEMBERSHIPS]
