"""SECURITY DEFINER functions that ask who calls: some show the rows of others all the same."""

from __future__ import annotations

from typing import Final

from tests.analyze.lint.faults.case import (
    ANONYMOUS,
    AS_ALICE,
    AS_BOB,
    DENIED,
    NOTHING,
    UNCLAIMED,
    Caller,
    Clean,
    Fault,
    Look,
    Works,
)


def _payroll(columns: str = "salary int") -> str:
    return f"""
CREATE TABLE payroll (id int PRIMARY KEY, owner text NOT NULL, {columns});
CREATE INDEX payroll_owner ON payroll (owner);
ALTER TABLE payroll ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON payroll TO authenticated;
CREATE POLICY own ON payroll FOR SELECT TO authenticated USING (owner = (SELECT auth.user_id()));
"""


def _function(
    body: str,
    *,
    name: str = "pays",
    returns: str = "SETOF payroll",
    arguments: str = "",
    words: str = "STABLE",
) -> str:
    language = "plpgsql" if body.startswith("BEGIN") else "sql"
    return f"""
CREATE OR REPLACE FUNCTION {name}({arguments}) RETURNS {returns} LANGUAGE {language} {words} SECURITY DEFINER
  SET search_path = '' AS $body$ {body} $body$;
REVOKE EXECUTE ON FUNCTION {name} FROM PUBLIC;
GRANT EXECUTE ON FUNCTION {name} TO authenticated;
"""


_ROWS: Final = "INSERT INTO payroll VALUES (1, 'alice', 10), (2, 'bob', 20);"
_SIGNED_IN: Final = "IF auth.user_id() IS NULL THEN RAISE insufficient_privilege; END IF;"
_OWN: Final = "p.owner = auth.user_id()"
_ALL: Final = "SELECT id FROM pays() ORDER BY id"


def _shows(
    name: str,
    body: str,
    mended: str,
    *,
    returns: str = "SETOF payroll",
    arguments: str = "",
    looks: tuple[Look, ...] = (Look(statement=_ALL, faulty=[1, 2], mended=[1]),),
) -> Fault:
    signature = f"public.pays({'integer' if arguments else ''})"
    return Fault(
        name=name,
        group="openings",
        rule="definer-reads-protected",
        objects=(signature,),
        schema=_payroll() + _function(body, returns=returns, arguments=arguments),
        rows=_ROWS,
        mend=_function(mended, returns=returns, arguments=arguments),
        shows=(*looks, Look(statement="SELECT id FROM payroll", faulty=[1], mended=[1])),
    )


FAULTS: list[Fault] = [
    _shows(
        "A function that asks whether the caller is signed in shows all rows",
        f"BEGIN {_SIGNED_IN} RETURN QUERY SELECT * FROM public.payroll; END",
        f"BEGIN {_SIGNED_IN} RETURN QUERY SELECT * FROM public.payroll AS p WHERE {_OWN}; END",
    ),
    _shows(
        "A query that asks whether the caller is signed in shows all rows",
        "SELECT * FROM public.payroll WHERE auth.user_id() IS NOT NULL",
        "SELECT * FROM public.payroll WHERE owner = auth.user_id()",
    ),
    _shows(
        "A function shows the row with a number to each caller",
        f"BEGIN {_SIGNED_IN} RETURN QUERY SELECT * FROM public.payroll AS p WHERE p.id = number; END",
        f"""BEGIN {_SIGNED_IN} RETURN QUERY SELECT * FROM public.payroll AS p
            WHERE p.id = number AND p.owner = auth.user_id(); END""",
        arguments="number int",
        looks=(Look(statement="SELECT id FROM pays(2)", faulty=[2], mended=NOTHING),),
    ),
    _shows(
        "A function shows all rows as JSON to each caller",
        f"BEGIN {_SIGNED_IN} RETURN (SELECT pg_catalog.jsonb_agg(p.salary) FROM public.payroll AS p); END",
        f"""BEGIN {_SIGNED_IN} RETURN (
            SELECT pg_catalog.jsonb_agg(p.salary) FROM public.payroll AS p WHERE {_OWN}); END""",
        returns="jsonb",
        looks=(Look(statement="SELECT pays()", faulty=[[10, 20]], mended=[[10]]),),
    ),
]

_ADMINS: Final = """
CREATE TABLE admins (user_id text PRIMARY KEY);
ALTER TABLE admins ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON admins TO authenticated;
CREATE POLICY me ON admins FOR SELECT TO authenticated USING (user_id = (SELECT auth.user_id()));
"""

CLEAN: list[Clean] = [
    Clean(
        name="Functions with the rights of their owner filter by the caller",
        schema=_payroll()
        + _function("SELECT * FROM public.payroll WHERE owner = auth.user_id()")
        + _function(
            f"""BEGIN {_SIGNED_IN}
            RETURN QUERY SELECT * FROM public.payroll AS p WHERE p.id = number AND p.owner = auth.user_id();
            END""",
            name="pay",
            arguments="number int",
        ),
        rows=_ROWS,
        works=(
            Works(statement=_ALL, outcome=[2], caller=AS_BOB),
            Works(statement="SELECT id FROM pay(1)", outcome=NOTHING, caller=AS_BOB),
            Works(statement="SELECT id FROM pay(1)", outcome=DENIED, caller=UNCLAIMED),
            Works(statement=_ALL, outcome=DENIED, caller=ANONYMOUS),
        ),
    ),
    Clean(
        name="Functions with the rights of their owner are for administrators",
        schema=_payroll()
        + _ADMINS
        + _function(
            """BEGIN
            IF NOT EXISTS (SELECT FROM public.admins AS a WHERE a.user_id = auth.user_id()) THEN
              RAISE insufficient_privilege;
            END IF;
            RETURN QUERY SELECT * FROM public.payroll; END"""
        )
        + _function(
            """BEGIN
            IF auth.jwt() ->> 'app_role' IS DISTINCT FROM 'admin' THEN RAISE insufficient_privilege; END IF;
            RETURN QUERY SELECT * FROM public.payroll; END""",
            name="all_pays",
        ),
        rows=_ROWS + "INSERT INTO admins VALUES ('alice');",
        works=(
            Works(statement=_ALL, outcome=[1, 2], caller=AS_ALICE),
            Works(statement=_ALL, outcome=DENIED, caller=AS_BOB),
            Works(statement="SELECT id FROM all_pays()", outcome=DENIED, caller=AS_ALICE),
            Works(
                statement="SELECT id FROM all_pays()",
                outcome=[1, 2],
                caller=Caller(claims={"sub": "carol", "app_role": "admin"}),
            ),
        ),
    ),
    Clean(
        name="Functions with the rights of their owner show public rows, rows of a link, and sums",
        schema=_payroll("salary int, is_public boolean NOT NULL DEFAULT false, link text")
        + _function("SELECT * FROM public.payroll WHERE is_public OR owner = auth.user_id()")
        + _function(
            f"BEGIN {_SIGNED_IN} RETURN QUERY SELECT * FROM public.payroll AS p WHERE p.link = secret; END",
            name="linked",
            arguments="secret text",
        )
        + _function(
            f"""BEGIN {_SIGNED_IN} RETURN QUERY
            SELECT pg_catalog.count(*), pg_catalog.sum(p.salary), pg_catalog.max(p.salary)
            FROM public.payroll AS p; END""",
            name="totals",
            returns="TABLE (number bigint, total bigint, most int)",
        ),
        rows="INSERT INTO payroll VALUES (1, 'alice', 10, false, 'x'), (2, 'bob', 20, true, NULL);",
        works=(
            Works(statement=_ALL, outcome=[1, 2]),
            Works(statement=_ALL, outcome=[2], caller=AS_BOB),
            Works(statement="SELECT id FROM linked('x')", outcome=[1], caller=AS_BOB),
            Works(statement="SELECT total FROM totals()", outcome=[30], caller=AS_BOB),
        ),
    ),
    Clean(
        name="Functions with the rights of their owner ask for members, and take a row that has no owner",
        schema=_payroll("team int").replace("owner text NOT NULL", "owner text")
        + """
CREATE TABLE members (user_id text, team int, PRIMARY KEY (user_id, team));
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON members TO authenticated;
CREATE POLICY mine ON members FOR SELECT TO authenticated USING (user_id = (SELECT auth.user_id()));
"""
        + _function(
            """SELECT p.* FROM public.payroll AS p JOIN public.members AS m ON m.team = p.team
            WHERE m.user_id = auth.user_id()"""
        )
        + _function(
            f"""BEGIN {_SIGNED_IN} RETURN QUERY
            UPDATE public.payroll AS p SET owner = auth.user_id() WHERE p.id = number AND p.owner IS NULL
            RETURNING p.*; END""",
            name="take",
            arguments="number int",
            words="VOLATILE",
        ),
        rows="""
INSERT INTO payroll VALUES (1, 'alice', 1), (2, 'bob', 2), (3, NULL, NULL);
INSERT INTO members VALUES ('alice', 2);
""",
        works=(
            Works(statement=_ALL, outcome=[2]),
            Works(statement=_ALL, outcome=NOTHING, caller=AS_BOB),
            Works(statement="SELECT id FROM take(3)", outcome=[3], caller=AS_BOB),
            Works(statement="SELECT id FROM take(1)", outcome=NOTHING, caller=AS_BOB),
        ),
    ),
]
