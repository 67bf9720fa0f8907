"""Changes of a policy's command, roles and kind, and of the set of policies."""

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
    with_claims,
)

_ME = "(SELECT auth.user_id())"
_OWN = f"owner = {_ME}"
_MINE = f"CREATE POLICY mine ON docs TO authenticated USING ({_OWN});"

CASES = [
    Case(
        name="ALL split in four equal policies",
        before=DOCS + _MINE,
        after=f"""
DROP POLICY mine ON docs;
CREATE POLICY mine_select ON docs FOR SELECT TO authenticated USING ({_OWN});
CREATE POLICY mine_insert ON docs FOR INSERT TO authenticated WITH CHECK ({_OWN});
CREATE POLICY mine_update ON docs FOR UPDATE TO authenticated USING ({_OWN}) WITH CHECK ({_OWN});
CREATE POLICY mine_delete ON docs FOR DELETE TO authenticated USING ({_OWN});
""",
        rows=DOCS_ROWS,
        is_quick=True,
    ),
    Case(
        name="ALL split in four, of which one is forgotten",
        before=DOCS + _MINE,
        after=f"""
DROP POLICY mine ON docs;
CREATE POLICY mine_select ON docs FOR SELECT TO authenticated USING ({_OWN});
CREATE POLICY mine_insert ON docs FOR INSERT TO authenticated WITH CHECK ({_OWN});
CREATE POLICY mine_update ON docs FOR UPDATE TO authenticated USING ({_OWN});
""",
        rows=DOCS_ROWS,
        expected=closes("docs", "DELETE"),
    ),
    Case(
        name="Two policies joined by OR",
        before=DOCS + _MINE + "CREATE POLICY public ON docs TO authenticated USING (body = 'public');",
        after=f"DROP POLICY public ON docs; ALTER POLICY mine ON docs USING (body = 'public' OR {_OWN});",
        rows={"docs": rows("id owner body", (1, "alice", "x"), (2, "bob", "public"), (3, None, None))},
    ),
    Case(
        name="Two policies joined by AND instead of OR",
        before=DOCS + _MINE + "CREATE POLICY public ON docs TO authenticated USING (body = 'public');",
        after=f"DROP POLICY public ON docs; ALTER POLICY mine ON docs USING (body = 'public' AND {_OWN});",
        rows={"docs": rows("id owner body", (1, "alice", "x"), (2, "bob", "public"), (3, "alice", "public"))},
        expected=closes("docs", "ALL"),
    ),
    Case(
        name="A policy is renamed",
        before=DOCS + _MINE,
        after="ALTER POLICY mine ON docs RENAME TO own;",
        rows=DOCS_ROWS,
    ),
    Case(
        name="A policy is dropped",
        before=DOCS + _MINE,
        after="DROP POLICY mine ON docs;",
        rows=DOCS_ROWS,
        expected=closes("docs", "ALL"),
    ),
    Case(
        name="A policy that another one contains is dropped",
        before=DOCS + _MINE + f"CREATE POLICY own_secrets ON docs USING ({_OWN} AND body = 'secret');",
        after="DROP POLICY own_secrets ON docs;",
        rows={"docs": rows("id owner body", (1, "alice", "x"), (2, "alice", "secret"), (3, "bob", "secret"))},
        updates={"docs": rows("id", (9,))},
        # Of the anonymous role, a token with a subject is enough for that policy.
        expected=closes("docs", "ALL", "anonymous"),
    ),
    Case(
        name="A permissive policy is added for SELECT",
        before=DOCS + _MINE,
        after="CREATE POLICY public ON docs FOR SELECT TO authenticated USING (body = 'public');",
        rows={"docs": rows("id owner body", (1, "alice", "x"), (2, "bob", "public"), (3, None, "x"))},
        expected=opens("docs", "SELECT"),
    ),
    Case(
        name="A restrictive policy is added",
        before=DOCS + _MINE,
        after="CREATE POLICY secrets ON docs AS RESTRICTIVE USING (body <> 'secret');",
        rows={"docs": rows("id owner body", (1, "alice", "x"), (2, "alice", "secret"), (3, "bob", "secret"))},
        expected=closes("docs", "ALL"),
    ),
    Case(
        name="A restrictive policy is dropped",
        before=DOCS
        + _MINE
        + "CREATE POLICY secrets ON docs AS RESTRICTIVE FOR DELETE USING (body IS DISTINCT FROM 'secret');",
        after="DROP POLICY secrets ON docs;",
        rows={"docs": rows("id owner body", (1, "alice", "x"), (2, "alice", "secret"), (3, "bob", "secret"))},
        expected=opens("docs", "DELETE"),
    ),
    Case(
        name="A restrictive policy that can't be false is added",
        before=DOCS + _MINE,
        after="CREATE POLICY known ON docs AS RESTRICTIVE USING (owner IS NOT NULL OR body IS NULL);",
        rows={"docs": rows("id owner body", (1, "alice", "x"), (2, None, "x"), (3, None, None))},
    ),
    Case(
        name="Permissive becomes restrictive",
        before=DOCS + _MINE,
        after=f"""
DROP POLICY mine ON docs;
CREATE POLICY mine ON docs AS RESTRICTIVE TO authenticated USING ({_OWN});
""",
        rows=DOCS_ROWS,
        expected=closes("docs", "ALL"),
    ),
    Case(
        name="Restrictive becomes permissive",
        before=DOCS + _MINE + "CREATE POLICY x ON docs AS RESTRICTIVE TO authenticated USING (body = 'x');",
        after="DROP POLICY x ON docs; CREATE POLICY x ON docs TO authenticated USING (body = 'x');",
        rows={"docs": rows("id owner body", (1, "alice", "x"), (2, "alice", "y"), (3, "bob", "x"))},
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="A restrictive policy is narrowed to one role",
        before=DOCS
        + _MINE
        + "CREATE POLICY secrets ON docs AS RESTRICTIVE USING (body IS DISTINCT FROM 'secret');",
        after="ALTER POLICY secrets ON docs TO anonymous;",
        rows={"docs": rows("id owner body", (1, "alice", "x"), (2, "alice", "secret"), (3, "bob", "secret"))},
        expected=opens("docs", "ALL"),
        is_quick=True,
    ),
    Case(
        name="A policy for PUBLIC instead of the role",
        before=DOCS + "CREATE POLICY public ON docs TO authenticated USING (body = 'public');",
        after="ALTER POLICY public ON docs TO PUBLIC;",
        rows={"docs": rows("id owner body", (1, "alice", "x"), (2, "bob", "public"))},
        expected=opens("docs", "ALL", "anonymous"),
    ),
    Case(
        name="A policy for PUBLIC respelled as one for each role",
        before=DOCS + "CREATE POLICY public ON docs USING (body = 'public');",
        after="ALTER POLICY public ON docs TO authenticated, anonymous, reports;",
        rows={"docs": rows("id owner body", (1, "alice", "x"), (2, "bob", "public"))},
        others=("reports",),
    ),
    Case(
        name="WITH CHECK equal to USING is dropped",
        before=DOCS + f"CREATE POLICY mine ON docs TO authenticated USING ({_OWN}) WITH CHECK ({_OWN});",
        after="DROP POLICY mine ON docs;" + _MINE,
        rows=DOCS_ROWS,
    ),
    Case(
        name="WITH CHECK (true)",
        before=DOCS + _MINE,
        after="ALTER POLICY mine ON docs WITH CHECK (true);",
        rows=DOCS_ROWS,
        # The new row must still be visible if the statement has a WHERE or RETURNING.
        expected=opens("docs", "INSERT UPDATE"),
    ),
    Case(
        name="A stricter WITH CHECK falls back to USING",
        before=DOCS
        + f"CREATE POLICY mine ON docs TO authenticated USING ({_OWN}) WITH CHECK ({_OWN} AND body <> 'no');",
        after="DROP POLICY mine ON docs;" + _MINE,
        rows={"docs": rows("id owner body", (1, "alice", "x"), (2, "alice", "no"), (3, "bob", "x"))},
        expected=opens("docs", "INSERT UPDATE"),
    ),
    Case(
        name="WITH CHECK is weaker for UPDATE alone",
        before=DOCS
        + f"""
CREATE POLICY read ON docs FOR SELECT TO authenticated USING (true);
CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK ({_OWN});
CREATE POLICY edit ON docs FOR UPDATE TO authenticated USING ({_OWN}) WITH CHECK ({_OWN});
""",
        after="ALTER POLICY edit ON docs WITH CHECK (true);",
        rows=DOCS_ROWS,
        # INSERT with ON CONFLICT, too, may update.
        expected=opens("docs", "INSERT UPDATE"),
    ),
    Case(
        name="USING is wider for UPDATE, but the policy of SELECT still hides the rows",
        before=DOCS
        + f"""
CREATE POLICY read ON docs FOR SELECT TO authenticated USING ({_OWN});
CREATE POLICY edit ON docs FOR UPDATE TO authenticated USING ({_OWN}) WITH CHECK (true);
""",
        after="ALTER POLICY edit ON docs USING (true);",
        rows=DOCS_ROWS,
        # Without WHERE, the statement changes the rows that the caller can't see.
        expected=opens("docs", "UPDATE"),
    ),
    Case(
        name="The policy of SELECT is wider, and with it UPDATE and DELETE by key",
        before=DOCS
        + f"""
CREATE POLICY read ON docs FOR SELECT TO authenticated USING ({_OWN});
CREATE POLICY edit ON docs FOR UPDATE TO authenticated USING (true);
CREATE POLICY away ON docs FOR DELETE TO authenticated USING (true);
CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK ({_OWN});
""",
        after="ALTER POLICY read ON docs USING (true);",
        rows=DOCS_ROWS,
        # INSERT with ON CONFLICT DO UPDATE, too: its rows must be visible.
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="The policy of SELECT is narrower, and INSERT with RETURNING fails",
        before=DOCS
        + """
CREATE POLICY read ON docs FOR SELECT TO authenticated USING (true);
CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK (true);
""",
        after=f"ALTER POLICY read ON docs USING ({_OWN});",
        rows=DOCS_ROWS,
        expected=closes("docs", "SELECT INSERT"),
    ),
    Case(
        name="A soft delete becomes possible",
        before=DOCS.replace("body text", "deleted bool")
        + f"""
CREATE POLICY read ON docs FOR SELECT TO authenticated USING ({_OWN} AND NOT deleted);
CREATE POLICY edit ON docs FOR UPDATE TO authenticated USING ({_OWN}) WITH CHECK ({_OWN});
""",
        after=f"ALTER POLICY read ON docs USING ({_OWN});",
        rows={"docs": rows("id owner deleted", (1, "alice", False), (2, "alice", True), (3, "bob", False))},
        expected=opens("docs", "SELECT UPDATE"),
    ),
    Case(
        name="Row security is switched off",
        before=DOCS + _MINE,
        after="ALTER TABLE docs DISABLE ROW LEVEL SECURITY;",
        rows=DOCS_ROWS,
        expected=opens("docs", "ALL", "anonymous", "authenticated"),
    ),
    Case(
        name="Row security is switched on, with a policy that admits all",
        before=DOCS.replace("ALTER TABLE docs ENABLE ROW LEVEL SECURITY;", ""),
        after="ALTER TABLE docs ENABLE ROW LEVEL SECURITY; CREATE POLICY every ON docs USING (true);",
        rows=DOCS_ROWS,
    ),
    Case(
        name="Row security is switched on for the members that a policy reads",
        before=TEAMS + f"CREATE POLICY mine ON docs TO authenticated USING ({MINE});",
        after="ALTER TABLE members ENABLE ROW LEVEL SECURITY;",
        rows=TEAMS_ROWS,
        expected=closes("docs", "ALL") | closes("members", "SELECT", "anonymous", "authenticated"),
    ),
    Case(
        name="The policy of the members shows more",
        before=TEAMS
        + f"""
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
CREATE POLICY me ON members TO authenticated USING (user_id = {_ME});
CREATE POLICY mine ON docs TO authenticated USING (org_id IN (SELECT m.org_id FROM members AS m));
""",
        after="ALTER POLICY me ON members USING (true);",
        rows=TEAMS_ROWS,
        expected=opens("docs", "ALL") | opens("members", "SELECT"),
        is_quick=True,
    ),
    Case(
        name="The policy of the members shows more, which the policy of the documents doesn't use",
        before=TEAMS
        + f"""
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
CREATE POLICY me ON members TO authenticated USING (user_id = {_ME});
CREATE POLICY mine ON docs TO authenticated USING ({MINE});
""",
        after="ALTER POLICY me ON members USING (true);",
        rows=TEAMS_ROWS,
        expected=opens("members", "SELECT"),
    ),
    Case(
        name="Members may add themselves",
        before=TEAMS
        + f"""
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
GRANT INSERT ON members TO authenticated;
CREATE POLICY me ON members FOR SELECT TO authenticated USING (user_id = {_ME});
CREATE POLICY mine ON docs TO authenticated USING ({MINE});
""",
        after=f"CREATE POLICY join_in ON members FOR INSERT TO authenticated WITH CHECK (user_id = {_ME});",
        rows=TEAMS_ROWS,
        expected=opens("members", "INSERT"),
    ),
    Case(
        name="A recursion between policies begins",
        before=TEAMS
        + f"""
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
CREATE POLICY me ON members TO authenticated USING (user_id = {_ME});
CREATE POLICY mine ON docs TO authenticated USING ({MINE});
""",
        after="ALTER POLICY me ON members USING (org_id IN (SELECT d.org_id FROM docs AS d));",
        rows=TEAMS_ROWS,
        expected=closes("docs", "ALL") | closes("members", "SELECT"),
    ),
    Case(
        name="A recursion of a policy with itself ends",
        before=TEAMS
        + """
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
CREATE POLICY colleagues ON members TO authenticated
  USING (org_id IN (SELECT m.org_id FROM members AS m WHERE m.user_id = auth.user_id()));
""",
        after=f"ALTER POLICY colleagues ON members USING (user_id = {_ME});",
        rows=TEAMS_ROWS,
        expected=opens("members", "SELECT"),
    ),
    Case(
        name="A policy that raises an error for some subjects is mended",
        before=DOCS.replace("owner text", "owner int")
        + "CREATE POLICY mine ON docs TO authenticated USING (owner = (SELECT auth.user_id()::int));",
        after="ALTER POLICY mine ON docs USING (owner::text = (SELECT auth.user_id()));",
        rows={"docs": rows("id owner body", (1, 1, "x"), (2, 2, "x"), (3, None, "x"))},
        callers=with_claims(None, {}, {"sub": "1"}, {"sub": "alice"}),
    ),
    Case(
        name="A policy that divides by zero stops to do so",
        before=DOCS.replace("body text", "share int") + "CREATE POLICY mine ON docs USING (10 / share > 1);",
        after="ALTER POLICY mine ON docs USING (10 / nullif(share, 0) > 1);",
        rows={"docs": rows("id owner share", (1, "a", 0), (2, "a", 5), (3, "a", 10))},
        # An error hid all rows of the statement, those that the policy admits, too.
        expected=opens("docs", "SELECT UPDATE DELETE", "anonymous", "authenticated"),
    ),
]
