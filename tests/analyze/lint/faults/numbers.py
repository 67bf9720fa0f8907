"""Schemas whose callers are numbers: a policy, or a function that it calls, makes the subject one."""

from __future__ import annotations

from typing import Final

from tests.analyze.lint.faults.case import IDS, NOTHING, Caller, Clean, Fault, Look, Works

_ONE: Final = Caller(claims={"sub": "1"})
_TWO: Final = Caller(claims={"sub": "2"})
_DOCS: Final = """
CREATE TABLE docs (id int PRIMARY KEY, owner_id int NOT NULL, body text);
CREATE INDEX docs_owner ON docs (owner_id);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO authenticated;
"""
_ROWS: Final = "INSERT INTO docs VALUES (1, 1, 'a'), (2, 2, 'b');"
#: The caller's number: a cast in SQL, and a return in PL/pgSQL, which casts by itself.
_UID: Final = """
CREATE FUNCTION uid() RETURNS int LANGUAGE sql STABLE AS 'SELECT auth.user_id()::int';
"""
_PL_UID: Final = """
CREATE FUNCTION uid() RETURNS bigint LANGUAGE plpgsql STABLE AS 'BEGIN RETURN auth.user_id(); END';
"""
_PL_SETTING: Final = """
CREATE FUNCTION uid() RETURNS int LANGUAGE plpgsql STABLE
  AS 'BEGIN RETURN nullif(current_setting(''app.user_id'', true), ''''); END';
"""
_CLAIM: Final = "((nullif(current_setting('request.jwt.claims', true), '')::json ->> 'sub')::int)"


def _reads(name: str, helpers: str, using: str, own: str, caller: Caller = _ONE) -> Fault:
    """A policy that is true of each caller with a number."""
    return Fault(
        name=name,
        group="openings",
        rule="everyone-reads",
        objects=("public.docs",),
        schema=_DOCS + helpers + f"CREATE POLICY own ON docs FOR SELECT TO authenticated USING ({using});",
        rows=_ROWS,
        mend=f"ALTER POLICY own ON docs USING (owner_id = (SELECT {own}));",
        shows=(Look(statement=IDS, faulty=[1, 2], mended=[1], caller=caller),),
    )


FAULTS: list[Fault] = [
    _reads("Each number reads every row", "", f"{_CLAIM} IS NOT NULL", _CLAIM),
    _reads("Each positive number reads every row", "", "auth.user_id()::int > 0", "auth.user_id()::int"),
    _reads("Each number of a function reads every row", _UID, "uid() IS NOT NULL", "uid()"),
    _reads("Each number that PL/pgSQL returns reads every row", _PL_UID, "uid() IS NOT NULL", "uid()"),
    _reads(
        "Each number of a setting reads every row",
        _PL_SETTING,
        "uid() IS NOT NULL",
        "uid()",
        Caller(claims=None, settings={"app.user_id": "1"}),
    ),
    Fault(
        name="Each number deletes every row",
        group="openings",
        rule="everyone-writes",
        objects=("public.docs",),
        schema=_DOCS
        + _UID
        + """
CREATE POLICY read ON docs FOR SELECT TO authenticated USING (uid() IS NOT NULL);
CREATE POLICY own ON docs FOR DELETE TO authenticated USING (uid() IS NOT NULL);
""",
        rows=_ROWS,
        mend="ALTER POLICY own ON docs USING (owner_id = (SELECT uid()));",
        shows=(Look(statement="DELETE FROM docs", faulty=2, mended=1, caller=_ONE),),
    ),
    Fault(
        name="A membership of any number opens the rows",
        group="openings",
        rule="membership-without-caller",
        objects=("public.docs",),
        schema=_DOCS
        + _UID
        + """
CREATE TABLE members (user_id int, owner_id int, PRIMARY KEY (user_id, owner_id));
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON members TO authenticated;
CREATE POLICY mine ON members FOR SELECT TO authenticated USING (uid() IS NOT NULL);
CREATE POLICY team ON docs FOR SELECT TO authenticated
  USING (owner_id IN (SELECT m.owner_id FROM members AS m));
""",
        rows=_ROWS + "INSERT INTO members VALUES (1, 1), (2, 2);",
        mend="ALTER POLICY mine ON members USING (user_id = (SELECT uid()));",
        shows=(Look(statement=IDS, faulty=[1, 2], mended=[1], caller=_ONE),),
    ),
]

_OWN: Final = """
CREATE POLICY own ON docs TO authenticated USING (owner_id = (SELECT uid()))
  WITH CHECK (owner_id = (SELECT uid()));
"""
_WORKS: Final = (
    Works(statement=IDS, outcome=[1], caller=_ONE),
    Works(statement="INSERT INTO docs VALUES (3, 1, 'c')", outcome=1, caller=_ONE),
    Works(statement="INSERT INTO docs VALUES (3, 1, 'c')", outcome="42501", caller=_TWO),
    Works(statement="DELETE FROM docs", outcome=1, caller=_TWO),
)

CLEAN: list[Clean] = [
    Clean(
        name="Owners by numbers, and a view that filters by the caller's number",
        schema=_DOCS.replace("owner_id int NOT NULL", "owner_id int NOT NULL DEFAULT auth.user_id()::int")
        + _UID
        + _OWN
        + """
CREATE VIEW mine AS SELECT * FROM docs WHERE owner_id = uid();
GRANT SELECT ON mine TO authenticated;
""",
        rows=_ROWS,
        works=(
            *_WORKS,
            Works(statement="SELECT id FROM mine", outcome=[2], caller=_TWO),
            Works(statement="INSERT INTO docs (id) VALUES (3) RETURNING owner_id", outcome=[2], caller=_TWO),
        ),
    ),
    Clean(
        name="Owners by numbers that PL/pgSQL returns",
        schema=_DOCS + _PL_UID + _OWN,
        rows=_ROWS,
        works=_WORKS,
    ),
    Clean(
        name="Owners by numbers of a setting",
        schema=_DOCS + _PL_SETTING + _OWN,
        rows=_ROWS,
        works=(
            Works(statement=IDS, outcome=[2], caller=Caller(claims=None, settings={"app.user_id": "2"})),
            Works(statement=IDS, outcome=NOTHING, caller=Caller(claims=None)),
        ),
    ),
    Clean(
        name="Members by numbers, in a function with the rights of its owner",
        schema=_DOCS
        + """
CREATE TABLE members (user_id int, owner_id int, PRIMARY KEY (user_id, owner_id));
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON members TO authenticated;
CREATE POLICY mine ON members FOR SELECT TO authenticated USING (user_id = (SELECT auth.user_id()::int));
CREATE FUNCTION my_teams() RETURNS SETOF int LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
  AS 'SELECT m.owner_id FROM public.members AS m WHERE m.user_id = (SELECT auth.user_id()::int)';
REVOKE EXECUTE ON FUNCTION my_teams FROM PUBLIC;
GRANT EXECUTE ON FUNCTION my_teams TO authenticated;
CREATE POLICY team ON docs TO authenticated USING (owner_id = ANY (ARRAY(SELECT my_teams())));
""",
        rows=_ROWS + "INSERT INTO members VALUES (1, 1), (2, 2);",
        works=(Works(statement=IDS, outcome=[2], caller=_TWO),),
    ),
]
