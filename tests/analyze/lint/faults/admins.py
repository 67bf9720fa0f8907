"""Schemas with administrators, who may write the rows of others, and callers who only seem to be some."""

from __future__ import annotations

from typing import Final

from tests.analyze.lint.faults.case import (
    ALICE,
    AS_ALICE,
    AS_BOB,
    DENIED,
    IDS,
    OWN,
    Caller,
    Clean,
    Fault,
    Look,
    Works,
)

_DOCS: Final = """
CREATE TABLE docs (id int PRIMARY KEY, owner text NOT NULL DEFAULT auth.user_id(), org int);
CREATE INDEX docs_owner ON docs (owner);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO authenticated;
"""
_READ: Final = f"CREATE POLICY read ON docs FOR SELECT TO authenticated USING ({OWN});\n"
_OWN: Final = f"CREATE POLICY own ON docs TO authenticated USING ({OWN}) WITH CHECK ({OWN});\n"
_ADMINS: Final = """
CREATE TABLE admins (user_id text PRIMARY KEY);
ALTER TABLE admins ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON admins TO authenticated;
CREATE POLICY me ON admins FOR SELECT TO authenticated USING (user_id = (SELECT auth.user_id()));
"""
_IS_ADMIN: Final = "(SELECT auth.user_id()) IN (SELECT a.user_id FROM admins AS a)"
_MEMBERS: Final = """
CREATE TABLE members (user_id text, org_id int, PRIMARY KEY (user_id, org_id));
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON members TO authenticated;
CREATE POLICY mine ON members FOR SELECT TO authenticated USING (user_id = (SELECT auth.user_id()));
"""
_IS_MEMBER: Final = (
    "org = ANY (ARRAY(SELECT m.org_id FROM members AS m WHERE m.user_id = (SELECT auth.user_id())))"
)
_ADMIN_ROLE: Final = """
RESET ROLE;
CREATE ROLE administrator;
CREATE ROLE administration LOGIN NOINHERIT;
GRANT administrator TO administration;
GRANT USAGE ON SCHEMA public, auth TO administrator;
SET LOCAL ROLE app_owner;
"""
_ROWS: Final = "INSERT INTO docs VALUES (1, 'alice', 1), (2, 'bob', 2);"
_AS_ADMIN: Final = Caller(claims={**ALICE, "app_role": "admin"})
_FOR_BOB: Final = "INSERT INTO docs VALUES (3, 'bob', 1)"
_MINE: Final = "INSERT INTO docs (id, org) VALUES (4, 1)"


def _for_others(name: str, helpers: str, rows: str) -> Fault:
    """Ordinary callers write rows in the name of others."""
    return Fault(
        name=name,
        group="openings",
        rule="default-names-owner",
        objects=("public.docs",),
        schema=_DOCS + helpers,
        rows=_ROWS + rows,
        mend=f"CREATE POLICY bound ON docs AS RESTRICTIVE FOR INSERT TO authenticated WITH CHECK ({OWN});",
        shows=(
            Look(statement=_FOR_BOB, faulty=1, mended=DENIED),
            Look(statement=_MINE, faulty=1, mended=1),
            Look(statement=IDS, faulty=[1], mended=[1]),
        ),
    )


FAULTS: list[Fault] = [
    _for_others(
        "Subscribers write in the name of others",
        _ADMINS + _READ + f"CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK ({_IS_ADMIN});",
        "INSERT INTO admins VALUES ('alice');",
    ),
    _for_others(
        "Members write in the name of others, beside a policy for own rows",
        _MEMBERS
        + _OWN
        + f"CREATE POLICY team ON docs FOR INSERT TO authenticated WITH CHECK ({_IS_MEMBER});",
        "INSERT INTO members VALUES ('alice', 1);",
    ),
    _for_others(
        "A state of the row lets callers write in the name of others",
        _READ + f"CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK ({OWN} OR org = 1);",
        "",
    ),
]

_PLAIN: Final = (
    Works(statement=IDS, outcome=[2], caller=AS_BOB),
    Works(statement="INSERT INTO docs VALUES (3, 'alice', 1)", outcome=DENIED, caller=AS_BOB),
    Works(statement=_MINE, outcome=1, caller=AS_BOB),
)
_ALL: Final = f"CREATE POLICY admins ON docs TO authenticated USING ({_IS_ADMIN}) WITH CHECK ({_IS_ADMIN});"

CLEAN: list[Clean] = [
    Clean(
        name="Administrators of a table write the rows of others",
        schema=_DOCS + _ADMINS + _OWN + _ALL,
        rows=_ROWS + "INSERT INTO admins VALUES ('alice');",
        works=(
            *_PLAIN,
            Works(statement=IDS, outcome=[1, 2], caller=AS_ALICE),
            Works(statement=_FOR_BOB, outcome=1, caller=AS_ALICE),
        ),
    ),
    Clean(
        name="Administrators by a claim add rows for others",
        schema=_DOCS
        + _OWN
        + """
CREATE POLICY admins ON docs FOR INSERT TO authenticated
  WITH CHECK ((SELECT auth.jwt() ->> 'app_role') = 'admin');
""",
        rows=_ROWS,
        works=(*_PLAIN, Works(statement=_FOR_BOB, outcome=1, caller=_AS_ADMIN)),
    ),
    Clean(
        name="A role of administrators writes the rows of others",
        schema=_DOCS
        + _OWN
        + _ADMIN_ROLE
        + """
GRANT SELECT, INSERT ON docs TO administrator;
CREATE POLICY all_rows ON docs FOR SELECT TO administrator USING (true);
CREATE POLICY add ON docs FOR INSERT TO administrator WITH CHECK (true);
""",
        rows=_ROWS,
        works=(
            *_PLAIN,
            Works(statement=_FOR_BOB, outcome=1, caller=Caller(role="administrator", login="administration")),
        ),
    ),
    Clean(
        name="Settings that administrators write, with a note of who did",
        schema=_ADMINS
        + f"""
CREATE TABLE settings (name text PRIMARY KEY, value text, written_by text DEFAULT auth.user_id());
ALTER TABLE settings ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE ON settings TO authenticated;
CREATE POLICY admins ON settings TO authenticated USING ({_IS_ADMIN}) WITH CHECK ({_IS_ADMIN});
""",
        rows="INSERT INTO settings VALUES ('theme', 'dark', 'carol'); INSERT INTO admins VALUES ('alice');",
        works=(
            Works(statement="SELECT name FROM settings", outcome=[], caller=AS_BOB),
            Works(statement="INSERT INTO settings VALUES ('a', 'b')", outcome=DENIED, caller=AS_BOB),
            Works(
                statement="INSERT INTO settings VALUES ('a', 'b') RETURNING written_by",
                outcome=["alice"],
                caller=AS_ALICE,
            ),
        ),
    ),
]
