"""Changes of the functions behind policies, of views and of triggers."""

from __future__ import annotations

from tests.analyze.cases.case import (
    ALICE,
    BOB,
    DOCS,
    DOCS_ROWS,
    TEAMS,
    TEAMS_ROWS,
    Case,
    both,
    closes,
    opens,
    rows,
    verdicts,
    with_claims,
)

_ME = "(SELECT auth.user_id())"
_OWN = f"owner = {_ME}"
_MINE = f"CREATE POLICY mine ON docs TO authenticated USING ({_OWN});"
_READS_TABLES = "a function reads tables"
_TRIGGER = "a trigger"
_VIEW = "a view"


def _function(body: str, options: str = "SECURITY DEFINER SET search_path = public, pg_temp") -> str:
    return (
        "CREATE OR REPLACE FUNCTION my_orgs() RETURNS SETOF int LANGUAGE sql STABLE"
        f" {options} AS $f${body}$f$;"
    )


def _plpgsql(body: str, options: str = "SECURITY DEFINER SET search_path = public, pg_temp") -> str:
    return (
        "CREATE OR REPLACE FUNCTION is_member(org int) RETURNS bool LANGUAGE plpgsql STABLE"
        f" {options} AS $f${body}$f$;"
    )


_MY_ORGS = "SELECT org_id FROM members WHERE user_id = auth.user_id()"
_IS_MEMBER = """
BEGIN
  RETURN EXISTS (SELECT FROM members AS m WHERE m.org_id = org AND m.user_id = auth.user_id());
END"""
_BY_FUNCTION = "CREATE POLICY mine ON docs TO authenticated USING (org_id IN (SELECT my_orgs()));"
_BY_PLPGSQL = "CREATE POLICY mine ON docs TO authenticated USING (is_member(org_id));"
_HIDDEN = TEAMS + "ALTER TABLE members ENABLE ROW LEVEL SECURITY;"

_FUNCTIONS = [
    Case(
        name="Only the body of a function changed: it forgot the caller",
        before=TEAMS + _function(_MY_ORGS) + _BY_FUNCTION,
        after=_function("SELECT org_id FROM members"),
        rows=TEAMS_ROWS,
        expected=opens("docs", "ALL"),
        in_place=_READS_TABLES,
        is_quick=True,
    ),
    Case(
        name="The body of a function is written in another way",
        before=TEAMS + _function(_MY_ORGS) + _BY_FUNCTION,
        after=_function(
            "SELECT m.org_id FROM members AS m JOIN (SELECT auth.user_id()) AS c (me) ON m.user_id = me"
        ),
        rows=TEAMS_ROWS,
        in_place=_READS_TABLES,
    ),
    Case(
        name="A function in SQL becomes one in PL/pgSQL",
        before=TEAMS + _function(_MY_ORGS) + _BY_FUNCTION,
        after="""
CREATE OR REPLACE FUNCTION my_orgs() RETURNS SETOF int LANGUAGE plpgsql STABLE
  SECURITY DEFINER SET search_path = public, pg_temp AS $f$
BEGIN
  RETURN QUERY SELECT org_id FROM members WHERE user_id = auth.user_id();
END $f$;
""",
        rows=TEAMS_ROWS,
        in_place=_READS_TABLES,
    ),
    Case(
        name="A body in PL/pgSQL compares a column with itself",
        before=TEAMS + _plpgsql(_IS_MEMBER) + _BY_PLPGSQL,
        after=_plpgsql(_IS_MEMBER.replace("m.org_id = org", "m.org_id = m.org_id")),
        rows=TEAMS_ROWS,
        expected=opens("docs", "ALL"),
        in_place=_READS_TABLES,
    ),
    Case(
        name="A body in PL/pgSQL ends early for those without a subject",
        before=TEAMS + _plpgsql(_IS_MEMBER) + _BY_PLPGSQL,
        after=_plpgsql(
            _IS_MEMBER.replace("BEGIN", "BEGIN IF auth.user_id() IS NULL THEN RETURN true; END IF;")
        ),
        rows=TEAMS_ROWS,
        expected=opens("docs", "ALL"),
        in_place=_READS_TABLES,
    ),
    Case(
        name="A body in PL/pgSQL raises an error instead of false",
        before=TEAMS + _plpgsql(_IS_MEMBER) + _BY_PLPGSQL,
        after=_plpgsql(
            _IS_MEMBER.replace("BEGIN", "BEGIN IF auth.user_id() IS NULL THEN RAISE 'who?'; END IF;")
        ),
        rows=TEAMS_ROWS,
        in_place=_READS_TABLES,
    ),
    Case(
        name="A function that reads no table has another constant",
        before=DOCS
        + "CREATE FUNCTION is_public(text) RETURNS bool LANGUAGE sql IMMUTABLE AS $$SELECT $1 = 'public'$$;"
        + "CREATE POLICY public ON docs TO authenticated USING (is_public(body));",
        after="CREATE OR REPLACE FUNCTION is_public(text) RETURNS bool LANGUAGE sql IMMUTABLE"
        " AS $$SELECT $1 IN ('public', 'internal')$$;",
        rows={"docs": rows("id owner body", (1, "a", "public"), (2, "a", "internal"), (3, "a", "x"))},
        expected=opens("docs", "ALL"),
        in_place="the body of a function",
    ),
    Case(
        name="SECURITY DEFINER goes, and the policy of the members hides them",
        before=_HIDDEN + _function(_MY_ORGS) + _BY_FUNCTION,
        after="ALTER FUNCTION my_orgs() SECURITY INVOKER;",
        rows=TEAMS_ROWS,
        expected=closes("docs", "ALL"),
        in_place=_READS_TABLES,
    ),
    Case(
        name="SECURITY DEFINER comes, and the policy of the members no longer narrows it",
        before=_HIDDEN
        + f"CREATE POLICY me ON members TO authenticated USING (user_id = {_ME});"
        + _function("SELECT org_id FROM members", "SET search_path = public, pg_temp")
        + _BY_FUNCTION,
        after="ALTER FUNCTION my_orgs() SECURITY DEFINER;",
        rows=TEAMS_ROWS,
        expected=opens("docs", "ALL"),
        in_place=_READS_TABLES,
    ),
    Case(
        name="The function's owner sees fewer rows",
        before=_HIDDEN + _function(_MY_ORGS) + _BY_FUNCTION + "GRANT SELECT ON members TO support;",
        after="ALTER FUNCTION my_orgs() OWNER TO support;",
        rows=TEAMS_ROWS,
        others=("support",),
        expected=closes("docs", "ALL"),
        in_place=_READS_TABLES,
    ),
    Case(
        name="The function's search_path finds another table",
        before=TEAMS
        + "CREATE SCHEMA archive; CREATE TABLE archive.members (org_id int, user_id text);"
        + _function(_MY_ORGS)
        + _BY_FUNCTION,
        after="ALTER FUNCTION my_orgs() SET search_path = archive, public, pg_temp;",
        rows={**TEAMS_ROWS, "archive.members": rows("org_id user_id", (2, "alice"))},
        expected=both("docs", "ALL"),
        in_place=_READS_TABLES,
    ),
    Case(
        name="The function's search_path has an empty schema first",
        before=TEAMS + "CREATE SCHEMA empty;" + _function(_MY_ORGS) + _BY_FUNCTION,
        after="ALTER FUNCTION my_orgs() SET search_path = empty, public, pg_temp;",
        rows=TEAMS_ROWS,
        in_place=_READS_TABLES,
    ),
    Case(
        name="Volatility and cost of a function",
        before=TEAMS + _function(_MY_ORGS) + _BY_FUNCTION,
        after="ALTER FUNCTION my_orgs() VOLATILE COST 1000;",
        rows=TEAMS_ROWS,
        in_place=_READS_TABLES,
    ),
    Case(
        name="A function that a function calls forgot the caller",
        before=TEAMS
        + """
CREATE FUNCTION memberships() RETURNS SETOF members LANGUAGE sql STABLE AS
  'SELECT * FROM members WHERE user_id = auth.user_id()';
"""
        + _function("SELECT org_id FROM memberships()")
        + _BY_FUNCTION,
        after="""
CREATE OR REPLACE FUNCTION memberships() RETURNS SETOF members LANGUAGE sql STABLE AS
  'SELECT * FROM members';
""",
        rows=TEAMS_ROWS,
        expected=opens("docs", "ALL"),
        in_place=_READS_TABLES,
    ),
    Case(
        name="A function of the same name with other arguments",
        before=TEAMS + _plpgsql(_IS_MEMBER) + _BY_PLPGSQL,
        after="CREATE FUNCTION is_member(org bigint) RETURNS bool LANGUAGE sql AS 'SELECT true';",
        rows=TEAMS_ROWS,
        in_place=_READS_TABLES,
    ),
    Case(
        name="An operator's function admits more",
        before=DOCS
        + """
CREATE FUNCTION is_mine(text, text) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN $1 = $2; END';
CREATE OPERATOR === (LEFTARG = text, RIGHTARG = text, FUNCTION = is_mine);
"""
        + f"CREATE POLICY mine ON docs TO authenticated USING (owner === {_ME});",
        after="CREATE OR REPLACE FUNCTION is_mine(text, text) RETURNS bool LANGUAGE plpgsql"
        " AS 'BEGIN RETURN $1 = $2 OR $2 IS NULL; END';",
        rows=DOCS_ROWS,
        expected=opens("docs", "ALL"),
        in_place="the body of a function",
    ),
    Case(
        name="A function with dynamic SQL forgot the caller",
        before=TEAMS
        + """
CREATE FUNCTION is_member(org int) RETURNS bool LANGUAGE plpgsql STABLE AS $f$
DECLARE found bool;
BEGIN
  EXECUTE 'SELECT EXISTS (SELECT FROM members WHERE org_id = $1 AND user_id = auth.user_id())' INTO found USING org;
  RETURN found;
END $f$;
"""
        + _BY_PLPGSQL,
        after="""
CREATE OR REPLACE FUNCTION is_member(org int) RETURNS bool LANGUAGE plpgsql STABLE AS $f$
DECLARE found bool;
BEGIN
  EXECUTE 'SELECT EXISTS (SELECT FROM members WHERE org_id = $1)' INTO found USING org;
  RETURN found;
END $f$;
""",
        rows=TEAMS_ROWS,
        # Such a function may read anything: what isn't seen to change is unknown.
        expected=opens("docs", "ALL") | verdicts("unknown", "docs", "ALL", "anonymous"),
        in_place=_READS_TABLES,
    ),
]

_VIEWS = [
    Case(
        name="A view lost security_invoker",
        before=DOCS
        + _MINE
        + "CREATE VIEW my_docs WITH (security_invoker = true) AS SELECT id, owner, body FROM docs;"
        + "GRANT SELECT ON my_docs TO authenticated;",
        after="ALTER VIEW my_docs RESET (security_invoker);",
        rows=DOCS_ROWS,
        expected=opens("my_docs", "SELECT"),
        in_place=_VIEW,
        is_quick=True,
    ),
    Case(
        name="A view gets security_invoker, which its policy already gave",
        before=DOCS
        + _MINE
        + f"CREATE VIEW my_docs AS SELECT id, owner, body FROM docs WHERE owner = {_ME};"
        + "GRANT SELECT ON my_docs TO authenticated;",
        after="ALTER VIEW my_docs SET (security_invoker = true);",
        rows=DOCS_ROWS,
        in_place=_VIEW,
    ),
    Case(
        name="A view's query loses its condition",
        before=DOCS
        + _MINE
        + f"CREATE VIEW my_docs AS SELECT id, owner, body FROM docs WHERE owner = {_ME};"
        + "GRANT SELECT ON my_docs TO authenticated;",
        after="CREATE OR REPLACE VIEW my_docs AS SELECT id, owner, body FROM docs;",
        rows=DOCS_ROWS,
        expected=opens("my_docs", "SELECT"),
        in_place=_VIEW,
    ),
    Case(
        name="A view shows a column more",
        before=DOCS
        + _MINE
        + "CREATE VIEW listing AS SELECT id, owner FROM docs; GRANT SELECT ON listing TO anonymous;",
        after="CREATE OR REPLACE VIEW listing AS SELECT id, owner, body FROM docs;",
        rows=DOCS_ROWS,
        expected=opens("listing", "SELECT", "anonymous"),
        in_place=_VIEW,
    ),
    Case(
        name="security_barrier changes no rows",
        before=DOCS
        + _MINE
        + f"CREATE VIEW my_docs AS SELECT id, owner, body FROM docs WHERE owner = {_ME};"
        + "GRANT SELECT, UPDATE ON my_docs TO authenticated;",
        after="ALTER VIEW my_docs SET (security_barrier = true);",
        rows=DOCS_ROWS,
        in_place=_VIEW,
    ),
    Case(
        name="A view's CHECK OPTION goes",
        before=DOCS
        + _MINE
        + f"CREATE VIEW my_docs AS SELECT id, owner, body FROM docs WHERE owner = {_ME} WITH CHECK OPTION;"
        + "GRANT SELECT, INSERT, UPDATE ON my_docs TO authenticated;",
        after="ALTER VIEW my_docs RESET (check_option);",
        rows=DOCS_ROWS,
        inserts={"my_docs": rows("id owner body", (8, "alice", "new"), (9, "bob", "new"))},
        updates={"my_docs": rows("owner", ("bob",), ("alice",))},
        expected=opens("my_docs", "INSERT UPDATE"),
        in_place=_VIEW,
    ),
    Case(
        name="A view's owner is bound by the policies, and no longer is",
        before=DOCS
        + _MINE
        + "CREATE POLICY public ON docs TO reports USING (body = 'public'); GRANT SELECT ON docs TO reports;"
        + "CREATE VIEW listing AS SELECT id, owner, body FROM docs; ALTER VIEW listing OWNER TO reports;"
        + "GRANT SELECT ON listing TO authenticated;",
        after="ALTER VIEW listing OWNER TO CURRENT_USER;",
        rows={"docs": rows("id owner body", (1, "alice", "public"), (2, "bob", "x"))},
        others=("reports",),
        expected=opens("listing", "SELECT") | closes("listing", "SELECT", "reports"),
        in_place=_VIEW,
    ),
    Case(
        name="The policy below a view of the caller's is wider",
        before=DOCS
        + _MINE
        + "CREATE VIEW my_docs WITH (security_invoker = true) AS SELECT id, body FROM docs;"
        + "GRANT SELECT ON my_docs TO authenticated;",
        after="CREATE POLICY public ON docs FOR SELECT TO authenticated USING (body = 'public');",
        rows={"docs": rows("id owner body", (1, "alice", "x"), (2, "bob", "public"))},
        expected=opens("docs", "SELECT") | opens("my_docs", "SELECT"),
        in_place=_VIEW,
    ),
    Case(
        name="The policy below a view of its owner's is wider",
        before=DOCS
        + _MINE
        + "CREATE VIEW all_docs AS SELECT id, body FROM docs; GRANT SELECT ON all_docs TO authenticated;",
        after="CREATE POLICY public ON docs FOR SELECT TO authenticated USING (body = 'public');",
        rows={"docs": rows("id owner body", (1, "alice", "x"), (2, "bob", "public"))},
        expected=opens("docs", "SELECT"),
        in_place=_VIEW,
    ),
    Case(
        name="A view on a view lost its condition below",
        before=DOCS
        + _MINE
        + "CREATE VIEW visible AS SELECT id, owner, body FROM docs WHERE body <> 'secret';"
        + "CREATE VIEW listing AS SELECT id, body FROM visible; GRANT SELECT ON listing TO anonymous;",
        after="CREATE OR REPLACE VIEW visible AS SELECT id, owner, body FROM docs;",
        rows={"docs": rows("id owner body", (1, "alice", "x"), (2, "bob", "secret"))},
        expected=opens("listing", "SELECT", "anonymous"),
        in_place=_VIEW,
    ),
    Case(
        name="A policy reads a view, whose query shows more",
        before=TEAMS
        + f"CREATE VIEW my_orgs AS SELECT org_id FROM members WHERE user_id = {_ME};"
        + "GRANT SELECT ON my_orgs TO authenticated;"
        + "CREATE POLICY mine ON docs TO authenticated USING (org_id IN (SELECT o.org_id FROM my_orgs AS o));",
        after="CREATE OR REPLACE VIEW my_orgs AS SELECT org_id FROM members;",
        rows=TEAMS_ROWS,
        expected=opens("docs", "ALL") | opens("my_orgs", "SELECT"),
        in_place=_VIEW,
    ),
]


def _before_insert(body: str) -> str:
    return (
        "CREATE OR REPLACE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $f$"
        f"BEGIN IF auth.user_id() IS NOT NULL THEN {body} END IF; RETURN NEW; END $f$;"
    )


_STAMPED = "CREATE TRIGGER stamp BEFORE INSERT ON docs FOR EACH ROW EXECUTE FUNCTION stamp();"
_WRITERS = with_claims(ALICE, BOB)

_TRIGGERS = [
    Case(
        name="WITH CHECK (true), but a trigger sets the owner, except of callers without a subject",
        before=DOCS
        + _before_insert("NEW.owner := auth.user_id();")
        + _STAMPED
        + f"CREATE POLICY read ON docs FOR SELECT TO authenticated USING ({_OWN});"
        + f"CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK ({_OWN});",
        after="ALTER POLICY add ON docs WITH CHECK (true);",
        rows=DOCS_ROWS,
        expected=opens("docs", "INSERT"),
        in_place=_TRIGGER,
    ),
    Case(
        name="WITH CHECK (true), but a trigger sets the owner",
        before=DOCS + "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN NEW.owner := auth.user_id(); RETURN NEW; END';"
        + _STAMPED
        + f"CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK (owner IS NOT DISTINCT FROM {_ME});",
        after="ALTER POLICY add ON docs WITH CHECK (true);",
        rows=DOCS_ROWS,
        in_place=_TRIGGER,
    ),
    Case(
        name="The trigger that guards the owner goes",
        before=DOCS
        + _before_insert("IF NEW.owner IS DISTINCT FROM auth.user_id() THEN RAISE 'not yours'; END IF;")
        + _STAMPED
        + "CREATE POLICY every ON docs TO authenticated USING (true);",
        after="DROP TRIGGER stamp ON docs;",
        rows=DOCS_ROWS,
        callers=_WRITERS,
        expected=opens("docs", "INSERT"),
        in_place=_TRIGGER,
    ),
    Case(
        name="The function of a trigger that guards the owner ends early",
        before=DOCS
        + _before_insert("IF NEW.owner IS DISTINCT FROM auth.user_id() THEN RAISE 'not yours'; END IF;")
        + _STAMPED
        + "CREATE POLICY every ON docs TO authenticated USING (true);",
        after=_before_insert("IF NEW.owner <> auth.user_id() THEN RAISE 'not yours'; END IF;"),
        rows=DOCS_ROWS,
        callers=_WRITERS,
        expected=opens("docs", "INSERT"),
        in_place=_TRIGGER,
    ),
    Case(
        name="The trigger sets the owner that a claim names",
        before=DOCS
        + _before_insert("NEW.owner := auth.user_id();")
        + _STAMPED
        + "CREATE POLICY every ON docs TO authenticated USING (true);",
        after=_before_insert("NEW.owner := coalesce(auth.jwt() ->> 'behalf', auth.user_id());"),
        rows=DOCS_ROWS,
        callers=with_claims(ALICE, {"sub": "alice", "behalf": "bob"}),
        # The same statement stores another row.
        expected=both("docs", "INSERT"),
        in_place=_TRIGGER,
    ),
    Case(
        name="A trigger writes a log, for which the caller loses the privilege",
        before=DOCS
        + "CREATE TABLE log (id int, owner text); GRANT INSERT ON log TO authenticated;"
        + "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $f$"
        "BEGIN INSERT INTO log VALUES (NEW.id, NEW.owner); RETURN NEW; END $f$;"
        + "CREATE TRIGGER note AFTER INSERT ON docs FOR EACH ROW EXECUTE FUNCTION note();"
        + _MINE,
        after="REVOKE INSERT ON log FROM authenticated;",
        rows={"docs": DOCS_ROWS["docs"], "log": rows("id owner", (1, "alice"))},
        callers=_WRITERS,
        expected=closes("docs", "INSERT") | closes("log", "INSERT"),
        in_place=_TRIGGER,
    ),
    Case(
        name="A cascade deletes what its own policy protects, before and after",
        before="""
CREATE TABLE orgs (id int PRIMARY KEY, owner text);
CREATE TABLE docs (id int PRIMARY KEY, org_id int REFERENCES orgs ON DELETE CASCADE, body text);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY; ALTER TABLE orgs ENABLE ROW LEVEL SECURITY;
GRANT SELECT, DELETE ON docs, orgs TO authenticated;
CREATE POLICY every ON docs TO authenticated USING (true);
"""
        f"CREATE POLICY mine ON orgs TO authenticated USING ({_OWN});",
        after="ALTER POLICY every ON docs USING (false);",
        rows={
            "orgs": rows("id owner", (1, "alice"), (2, "bob")),
            "docs": rows("id org_id body", (1, 1, "x")),
        },
        expected=closes("docs", "SELECT DELETE"),
    ),
    Case(
        name="A policy of the organizations lets a cascade delete more",
        before="""
CREATE TABLE orgs (id int PRIMARY KEY, owner text);
CREATE TABLE docs (id int PRIMARY KEY, org_id int REFERENCES orgs ON DELETE CASCADE, body text);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY; ALTER TABLE orgs ENABLE ROW LEVEL SECURITY;
GRANT SELECT, DELETE ON docs, orgs TO authenticated;
"""
        f"CREATE POLICY mine ON orgs TO authenticated USING ({_OWN});",
        after=f"ALTER POLICY mine ON orgs USING ({_OWN} OR owner IS NULL);",
        rows={"orgs": rows("id owner", (1, "alice"), (2, None)), "docs": rows("id org_id body", (1, 2, "x"))},
        expected=opens("orgs", "SELECT DELETE"),
    ),
    Case(
        name="A trigger instead of INSERT into a view, as its owner",
        before=DOCS
        + _MINE
        + f"CREATE VIEW entry AS SELECT id, owner, body FROM docs WHERE owner = {_ME};"
        + "GRANT SELECT, INSERT ON entry TO authenticated;"
        + "CREATE FUNCTION enter() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $f$"
        "BEGIN INSERT INTO docs VALUES (NEW.id, auth.user_id(), NEW.body); RETURN NEW; END $f$;"
        + "CREATE TRIGGER enter INSTEAD OF INSERT ON entry FOR EACH ROW EXECUTE FUNCTION enter();",
        after="CREATE OR REPLACE FUNCTION enter() RETURNS trigger LANGUAGE plpgsql AS $f$"
        "BEGIN INSERT INTO docs VALUES (NEW.id, NEW.owner, NEW.body); RETURN NEW; END $f$;",
        rows=DOCS_ROWS,
        inserts={"entry": rows("id owner body", (8, "alice", "new"), (9, "bob", "new"))},
        callers=_WRITERS,
        # Under another's name, the row was stored as the caller's; the policy now rejects it.
        expected=closes("entry", "INSERT"),
        in_place=_VIEW,
    ),
]

CASES = [*_FUNCTIONS, *_VIEWS, *_TRIGGERS]
