"""Writes of callers through views without security_invoker."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sqla_rls.catalog.query import undone
from tests.analyze.lint.examples import IS_MEMBER, OWN, TABLE, Examples, run, shown, unknown


def _trigger(
    body: str, event: str = "INSERT", rights: str = "SECURITY DEFINER", view: str = "SELECT * FROM docs"
) -> str:
    """Return a view v, and a trigger of *event* whose function has *rights*."""
    row = "OLD" if event == "DELETE" else "NEW"
    return f"""
    CREATE FUNCTION put() RETURNS trigger LANGUAGE plpgsql {rights} SET search_path = ''
      AS $put$ BEGIN {body}; RETURN {row}; END $put$;
    CREATE VIEW v AS {view}; GRANT {event} ON v TO authenticated;
    CREATE TRIGGER put INSTEAD OF {event} ON v FOR EACH ROW EXECUTE FUNCTION put()"""


#: A view v of the table docs, of which authenticated reads and writes own rows, and its privileges; the level
#: of the finding, the commands that write past the policies, and the parts without an answer.
VIEW_WRITES: dict[str, tuple[str, str | None, list[str], int]] = {
    "new rows, by a policy of the owner": (
        """GRANT INSERT ON docs TO reporting;
        CREATE POLICY add ON docs FOR INSERT TO reporting WITH CHECK (true);
        CREATE VIEW v AS SELECT * FROM docs; ALTER VIEW v OWNER TO reporting;
        GRANT SELECT, INSERT ON v TO authenticated""",
        "error",
        ["INSERT"],
        0,
    ),
    "all rows, by policies of the owner for UPDATE and DELETE": (
        """GRANT UPDATE, DELETE ON docs TO reporting;
        CREATE POLICY u ON docs FOR UPDATE TO reporting USING (true);
        CREATE POLICY s ON docs FOR SELECT TO reporting USING (true);
        CREATE POLICY d ON docs FOR DELETE TO reporting USING (true);
        CREATE VIEW v AS SELECT is_public FROM docs; ALTER VIEW v OWNER TO reporting;
        GRANT UPDATE, DELETE ON v TO authenticated""",
        "error",
        ["UPDATE", "DELETE"],
        0,
    ),
    "policies of the owner that are as narrow": (
        f"""GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO reporting;
        CREATE POLICY r ON docs TO reporting USING ({OWN} AND id > 0) WITH CHECK ({OWN} AND NOT is_public);
        CREATE VIEW v AS SELECT * FROM docs; ALTER VIEW v OWNER TO reporting;
        GRANT SELECT, INSERT, UPDATE, DELETE ON v TO authenticated""",
        None,
        [],
        0,
    ),
    "a filter by the caller that holds for reading only": (
        f"""CREATE VIEW v AS SELECT * FROM docs WHERE {OWN};
        GRANT SELECT, INSERT, UPDATE, DELETE ON v TO authenticated""",
        "error",
        ["INSERT", "UPDATE"],
        0,
    ),
    "an owner of the table that isn't a superuser": (
        f"""ALTER TABLE docs OWNER TO back; CREATE VIEW v AS SELECT * FROM docs WHERE {OWN};
        ALTER VIEW v OWNER TO back; GRANT INSERT ON v TO authenticated""",
        "error",
        ["INSERT"],
        0,
    ),
    "an owner of a forced table": (
        f"""ALTER TABLE docs OWNER TO back, FORCE ROW LEVEL SECURITY;
        CREATE VIEW v AS SELECT * FROM docs WHERE {OWN}; ALTER VIEW v OWNER TO back;
        GRANT SELECT, INSERT, UPDATE, DELETE ON v TO authenticated""",
        None,
        [],
        0,
    ),
    "an owner with BYPASSRLS": (
        """GRANT ALL ON docs TO above; CREATE VIEW v AS SELECT 1 AS one FROM docs;
        ALTER VIEW v OWNER TO above; GRANT DELETE ON v TO authenticated""",
        "error",
        ["DELETE"],
        0,
    ),
    "rows that are read, too": (
        "CREATE VIEW v AS SELECT * FROM docs; GRANT SELECT, DELETE ON v TO authenticated",
        "error",
        ["DELETE"],
        0,
    ),
    "callers without a privilege on the table": (
        f"""REVOKE ALL ON docs FROM authenticated; CREATE VIEW v AS SELECT * FROM docs WHERE {OWN};
        GRANT INSERT, UPDATE ON v TO authenticated""",
        "warning",
        ["INSERT", "UPDATE"],
        0,
    ),
    "own rows for callers without a privilege on the table": (
        f"""REVOKE ALL ON docs FROM authenticated;
        CREATE VIEW v AS SELECT * FROM docs WHERE {OWN} WITH CHECK OPTION;
        GRANT INSERT, UPDATE, DELETE ON v TO authenticated""",
        None,
        [],
        0,
    ),
    "own rows, and a policy that reads a table and calls a function that callers may not": (
        f"""REVOKE ALL ON docs FROM authenticated; CREATE SCHEMA of_policies;
        CREATE TABLE of_policies.staff (user_id text); ALTER POLICY own ON docs WITH CHECK (
          {OWN} OR EXISTS (SELECT FROM of_policies.staff AS s WHERE s.user_id = auth.user_id()));
        CREATE FUNCTION of_policies.mine(id text) RETURNS boolean LANGUAGE plpgsql STABLE
          AS 'BEGIN RETURN of_policies.same(id); END';
        CREATE FUNCTION of_policies.same(id text) RETURNS boolean LANGUAGE sql STABLE
          AS 'SELECT id = auth.user_id()';
        ALTER POLICY own ON docs USING (of_policies.mine(owner_id));
        REVOKE ALL ON ALL FUNCTIONS IN SCHEMA of_policies FROM PUBLIC;
        CREATE VIEW v AS SELECT * FROM docs WHERE {OWN} WITH CHECK OPTION;
        GRANT INSERT, UPDATE, DELETE ON v TO authenticated""",
        None,
        [],
        0,
    ),
    "WITH CHECK OPTION": (
        f"""CREATE VIEW v AS SELECT * FROM docs WHERE {OWN} WITH CHECK OPTION;
        CREATE VIEW w AS SELECT owner_id, org_id, is_public FROM docs WHERE {OWN} WITH CHECK OPTION;
        GRANT SELECT, INSERT, DELETE ON v TO authenticated;
        GRANT SELECT, INSERT, UPDATE, DELETE ON w TO authenticated""",
        None,
        [],
        0,
    ),
    "WITH CHECK OPTION, which ON CONFLICT passes by": (
        f"""CREATE VIEW v AS SELECT * FROM docs WHERE {OWN} WITH CHECK OPTION;
        GRANT SELECT, INSERT, UPDATE, DELETE ON v TO authenticated""",
        "error",
        ["INSERT"],
        0,
    ),
    "ON CONFLICT of another key, with other names of columns": (
        f"""ALTER TABLE docs ADD code text NOT NULL UNIQUE, ALTER id ADD GENERATED ALWAYS AS IDENTITY,
          ALTER org_id SET DEFAULT 1, ALTER is_public SET DEFAULT false;
        CREATE VIEW v (c, o) AS SELECT code, owner_id FROM docs WHERE {OWN} WITH CHECK OPTION;
        GRANT SELECT, INSERT ON v TO authenticated; GRANT UPDATE (o) ON v TO authenticated""",
        "error",
        ["INSERT"],
        0,
    ),
    "ON CONFLICT that changes a column by which no rows are filtered": (
        f"""CREATE VIEW v AS SELECT * FROM docs WHERE {OWN} WITH CHECK OPTION;
        GRANT SELECT, INSERT ON v TO authenticated; GRANT UPDATE (is_public) ON v TO authenticated""",
        None,
        [],
        0,
    ),
    "ON CONFLICT, and the policies of the owner are as narrow": (
        f"""GRANT SELECT, INSERT, UPDATE ON docs TO reporting;
        CREATE POLICY r ON docs TO reporting USING ({OWN});
        CREATE VIEW v AS SELECT * FROM docs WHERE {OWN} WITH CHECK OPTION; ALTER VIEW v OWNER TO reporting;
        GRANT SELECT, INSERT, UPDATE ON v TO authenticated""",
        None,
        [],
        0,
    ),
    "a local CHECK OPTION above the filter": (
        f"""CREATE VIEW below AS SELECT * FROM docs WHERE {OWN};
        CREATE VIEW v AS SELECT * FROM below WITH LOCAL CHECK OPTION; GRANT INSERT ON v TO authenticated""",
        "error",
        ["INSERT"],
        0,
    ),
    "a CHECK OPTION above the filter": (
        f"""CREATE VIEW below AS SELECT * FROM docs WHERE {OWN};
        CREATE VIEW v AS SELECT * FROM below WITH CHECK OPTION; GRANT INSERT, UPDATE ON v TO authenticated""",
        None,
        [],
        0,
    ),
    "other names of columns, in a view of a view": (
        """CREATE VIEW below (a, "B b", c, d) AS SELECT is_public, owner_id, id, o FROM docs AS t (id, o);
        CREATE VIEW v (w, x, y, z) AS SELECT b, "B b", d, e FROM below AS d ("B b", b, e, d);
        GRANT INSERT ON v TO authenticated""",
        "error",
        ["INSERT"],
        0,
    ),
    "a column that decides nothing, of own rows": (
        f"""CREATE VIEW v AS SELECT * FROM docs WHERE {OWN};
        GRANT UPDATE (is_public), INSERT (id, is_public) ON v TO authenticated""",
        None,
        [],
        0,
    ),
    "security_invoker": (
        """CREATE VIEW v WITH (security_invoker) AS SELECT * FROM docs;
        GRANT SELECT, INSERT, UPDATE, DELETE ON v TO authenticated""",
        None,
        [],
        0,
    ),
    "a view of a view with security_invoker": (
        """CREATE VIEW below WITH (security_invoker) AS SELECT * FROM docs;
        CREATE VIEW v AS SELECT * FROM below;
        GRANT SELECT, INSERT, UPDATE, DELETE ON v, below TO authenticated""",
        None,
        [],
        0,
    ),
    "a partitioned table, a copy and a function in WHERE": (
        f"""CREATE TABLE parts (LIKE docs) PARTITION BY LIST (org_id);
        CREATE TABLE one PARTITION OF parts DEFAULT;
        ALTER TABLE parts ENABLE ROW LEVEL SECURITY; GRANT INSERT, SELECT ON parts TO authenticated;
        CREATE POLICY own ON parts TO authenticated USING ({OWN}); {IS_MEMBER}
        CREATE MATERIALIZED VIEW copy AS SELECT id FROM docs;
        CREATE VIEW v AS SELECT * FROM parts AS p
          WHERE {OWN} AND (is_member(org_id) OR is_public OR id IN (SELECT c.id FROM copy AS c));
        GRANT INSERT ON v TO authenticated""",
        "error",
        ["INSERT"],
        0,
    ),
    "a table without row security": (
        """CREATE TABLE news (id int PRIMARY KEY); CREATE VIEW v AS SELECT * FROM news;
        GRANT SELECT, INSERT, DELETE ON v, news TO authenticated""",
        None,
        [],
        0,
    ),
    "a view that can't be written": (
        f"""CREATE VIEW v AS SELECT DISTINCT id FROM docs WHERE {OWN};
        GRANT SELECT, INSERT, UPDATE, DELETE ON v TO authenticated""",
        None,
        [],
        0,
    ),
    "a foreign key, and a key that the database counts": (
        f"""CREATE TABLE orgs (id int PRIMARY KEY); ALTER TABLE docs ADD FOREIGN KEY (org_id) REFERENCES orgs,
          ALTER id ADD GENERATED ALWAYS AS IDENTITY, ALTER is_public SET DEFAULT false;
        CREATE VIEW v AS SELECT * FROM docs WHERE {OWN}; GRANT INSERT ON v TO authenticated""",
        "error",
        ["INSERT"],
        0,
    ),
    "a trigger that makes the caller the owner": (
        f"""CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql
          AS 'BEGIN NEW.owner_id := auth.user_id(); RETURN NEW; END';
        CREATE TRIGGER own BEFORE INSERT OR UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION own();
        CREATE VIEW v AS SELECT * FROM docs WHERE {OWN}; GRANT INSERT, UPDATE ON v TO authenticated""",
        None,
        [],
        0,
    ),
    "a constraint that no new row of the worlds satisfies": (
        f"""ALTER TABLE docs ADD code text NOT NULL, ADD CHECK (md5(code) LIKE 'abcdef%') NOT VALID;
        CREATE VIEW v AS SELECT * FROM docs WHERE {OWN}; GRANT INSERT ON v TO authenticated""",
        None,
        [],
        1,
    ),
    "an INSTEAD OF trigger with the caller's rights": (
        """CREATE FUNCTION put() RETURNS trigger LANGUAGE plpgsql SET search_path = ''
          AS 'BEGIN INSERT INTO public.docs VALUES (NEW.*); RETURN NEW; END';
        CREATE VIEW v AS SELECT * FROM docs; GRANT INSERT ON v TO authenticated;
        CREATE TRIGGER put INSTEAD OF INSERT ON v FOR EACH ROW EXECUTE FUNCTION put()""",
        None,
        [],
        0,
    ),
    "an INSTEAD OF trigger with other rights": (
        _trigger("INSERT INTO public.docs VALUES (NEW.*)"),
        "error",
        ["INSERT"],
        0,
    ),
    "an INSTEAD OF trigger that makes the caller the owner": (
        _trigger("INSERT INTO public.docs VALUES (NEW.id, NEW.org_id, auth.user_id(), NEW.is_public)"),
        None,
        [],
        0,
    ),
    "an INSTEAD OF trigger that refuses rows of others": (
        _trigger(
            "IF NEW.owner_id IS DISTINCT FROM auth.user_id() THEN RAISE 'not yours'; END IF; "
            "INSERT INTO public.docs VALUES (NEW.*)"
        ),
        None,
        [],
        0,
    ),
    "an INSTEAD OF trigger that asks who the caller is, and heeds no answer": (
        _trigger("PERFORM auth.user_id(); INSERT INTO public.docs VALUES (NEW.*)"),
        "error",
        ["INSERT"],
        0,
    ),
    "an INSTEAD OF trigger that compares with current_user, its owner": (
        _trigger(
            "IF NEW.owner_id = current_user THEN RAISE 'no'; END IF; INSERT INTO public.docs VALUES (NEW.*)"
        ),
        "error",
        ["INSERT"],
        0,
    ),
    "an INSTEAD OF trigger that updates in silence, and the caller's id": (
        _trigger(
            "UPDATE public.docs SET is_public = NEW.is_public "
            "WHERE id = OLD.id AND auth.user_id() IS NOT NULL",
            "UPDATE",
        ),
        "error",
        ["UPDATE"],
        0,
    ),
    "an INSTEAD OF trigger that updates own rows in silence": (
        _trigger(
            "UPDATE public.docs SET is_public = NEW.is_public "
            "WHERE id = OLD.id AND owner_id = auth.user_id()",
            "UPDATE",
        ),
        None,
        [],
        0,
    ),
    "an INSTEAD OF trigger with the caller's rights that updates in silence": (
        _trigger("UPDATE public.docs SET is_public = NEW.is_public WHERE id = OLD.id", "UPDATE", ""),
        None,
        [],
        0,
    ),
    "an INSTEAD OF trigger that deletes by a function with other rights": (
        """CREATE FUNCTION gone(one int) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = ''
          AS 'DELETE FROM public.docs AS d WHERE d.id = one AND auth.user_id() IS NOT NULL';"""
        + _trigger("PERFORM public.gone(OLD.id)", "DELETE", ""),
        "error",
        ["DELETE"],
        0,
    ),
    "an INSTEAD OF trigger that asks a table of members, and keeps a log": (
        f"""ALTER TABLE members ENABLE ROW LEVEL SECURITY; CREATE TABLE log (id serial, who text);
        ALTER TABLE log ENABLE ROW LEVEL SECURITY; {IS_MEMBER}
        CREATE POLICY teams ON docs TO authenticated USING (is_public AND org_id = 1);"""
        + _trigger(
            "INSERT INTO public.log (who) VALUES (auth.user_id()); "
            "IF EXISTS (SELECT FROM public.members AS m WHERE m.user_id = auth.user_id() AND m.org_id = 1) "
            "THEN INSERT INTO public.docs VALUES (NEW.id, 1, NEW.owner_id, true); END IF"
        ),
        None,
        [],
        0,
    ),
    "an INSTEAD OF trigger that asks a table that the policies read": (
        """ALTER TABLE members ENABLE ROW LEVEL SECURITY; GRANT SELECT ON members TO authenticated;
        CREATE POLICY teams ON docs TO authenticated USING (org_id IN (SELECT m.org_id FROM members AS m));"""
        + _trigger(
            "IF EXISTS (SELECT FROM public.members AS m WHERE m.user_id = auth.user_id()) "
            "THEN INSERT INTO public.docs VALUES (NEW.id, NEW.org_id, auth.user_id(), true); END IF"
        ),
        None,
        [],
        1,
    ),
    "an INSTEAD OF trigger of a view with security_invoker": (
        _trigger("INSERT INTO public.docs VALUES (NEW.*)") + "; ALTER VIEW v SET (security_invoker)",
        "error",
        ["INSERT"],
        0,
    ),
    "an INSTEAD OF trigger for the caller's own rows, and another that changes nothing": (
        _trigger("INSERT INTO public.docs VALUES (NEW.id, 1, auth.user_id(), true)")
        + """; CREATE FUNCTION del() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
          AS 'BEGIN PERFORM count(*) FROM public.docs; RETURN OLD; END';
        GRANT DELETE ON v TO authenticated;
        CREATE TRIGGER del INSTEAD OF DELETE ON v FOR EACH ROW EXECUTE FUNCTION del()""",
        None,
        [],
        1,
    ),
    "an INSTEAD OF trigger that changes nothing": (
        _trigger("PERFORM count(*) FROM public.docs"),
        None,
        [],
        1,
    ),
    "an INSTEAD OF trigger of a view of two tables": (
        _trigger(
            "INSERT INTO public.docs VALUES (NEW.id, 1, auth.user_id(), true)",
            view="SELECT d.id, m.user_id FROM docs AS d JOIN members AS m USING (org_id)",
        ),
        None,
        [],
        1,
    ),
}


@pytest.mark.exhaustive
def test_writes_through_a_view_are_tried(examples: Examples, subtests: pytest.Subtests) -> None:
    before = f"""
    CREATE ROLE reporting; CREATE ROLE back; CREATE ROLE above BYPASSRLS;
    CREATE POLICY own ON docs TO PUBLIC USING ({OWN}) WITH CHECK ({OWN});
    """.replace("TO PUBLIC", "TO authenticated")
    for name, (sql, level, commands, undecided) in VIEW_WRITES.items():
        with subtests.test(name):
            found = examples.look(f"{TABLE}{before}{sql};", select=["view-without-invoker"])

            assert shown(found)[: len(found.findings) - undecided] == (
                [] if level is None else [f"{level} view-without-invoker public.v"]
            )
            assert len(unknown(found)) == undecided
            tried = [one for finding in found.findings for one in finding.evidence if "command" in one.data]
            assert [one.data["command"] for one in tried] == commands
            for one in tried:
                assert one.kind == "counterexample"
                assert one.data["role"] == "authenticated"
                assert one.data["statement"] in one.text
                assert one.data["result"].endswith((" row", " rows"))


def test_a_view_whose_rows_can_not_be_made_is_not_passed_over(examples: Examples) -> None:
    """The constraint refuses each row that the worlds are made of."""
    found = examples.look(
        TABLE
        + f"""ALTER TABLE docs ADD code text NOT NULL CHECK (md5(code) = '900150983cd24fb0d6963f7d28e17f72');
        CREATE POLICY own ON docs TO authenticated USING ({OWN});
        CREATE VIEW v AS SELECT * FROM docs;
        GRANT SELECT, UPDATE, DELETE ON v TO authenticated""",
        select=["view-without-invoker"],
    )

    assert "warning view-without-invoker public.v" in shown(found)
    reasons = " ".join(part.text for one in found.findings if one.rule == "unknown" for part in one.evidence)
    assert all(f"no {command} was tried" in reasons for command in ("UPDATE", "DELETE")), reasons


@pytest.mark.exhaustive
def test_merge_changes_no_row_that_the_filter_hides(examples: Examples) -> None:
    """The rule tries no MERGE, since ON CONFLICT alone passes the filter by."""
    connection = examples.connection
    if connection.scalar(text("SELECT current_setting('server_version_num')::int < 170000")):
        pytest.skip("MERGE through views: PostgreSQL 17")
    source = "MERGE INTO v USING (SELECT 1 AS id) AS s ON v.id = s.id"
    statements = {
        f"{source} WHEN MATCHED THEN UPDATE SET owner_id = 'alice'": 0,
        f"{source} WHEN MATCHED THEN DELETE": 0,
        f"{source} WHEN NOT MATCHED THEN INSERT VALUES (2, 1, 'bob', true)": "44000",
        f"{source} WHEN NOT MATCHED THEN INSERT VALUES (1, 1, 'alice', true)": "23505",
        f"{source} WHEN NOT MATCHED BY SOURCE THEN UPDATE SET owner_id = 'alice'": 0,
        "INSERT INTO v VALUES (1, 1, 'bob', true) ON CONFLICT (id) DO UPDATE SET owner_id = 'alice'": 1,
    }
    with undone(connection):
        run(
            connection,
            TABLE
            + f"""CREATE VIEW v AS SELECT * FROM docs WHERE {OWN} WITH CHECK OPTION;
            GRANT SELECT, INSERT, UPDATE, DELETE ON v TO authenticated;
            INSERT INTO docs VALUES (1, 1, 'bob', true);
            SET LOCAL request.jwt.claims = '{{"sub": "alice"}}'; SET LOCAL ROLE authenticated""",
        )
        found: dict[str, int | str] = {}
        for statement in statements:
            with undone(connection):
                try:
                    found[statement] = connection.execute(text(statement)).rowcount
                except DBAPIError as error:
                    found[statement] = getattr(error.orig, "sqlstate", "")

    assert found == statements
