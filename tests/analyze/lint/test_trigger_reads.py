"""SECURITY DEFINER trigger functions that show callers rows which their policies hide."""

from __future__ import annotations

import tomllib

import pytest
from sqlalchemy import text

from sqla_rls.analyze.lint.pgrls_config import pgrls_config
from sqla_rls.analyze.lint.run import lint
from sqla_rls.catalog.query import undone
from tests.analyze.lint.examples import OWN, Examples, run, shown, unknown
from tests.support.suite import table

#: Callers read their own docs, and write notes of their own.
TABLES = f"""
CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL, org_id int, title text);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON docs FOR SELECT TO authenticated USING ({OWN});
GRANT SELECT ON docs TO authenticated;
CREATE TABLE notes (id int PRIMARY KEY, owner_id text NOT NULL, doc_id int, org_id int, words text);
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON notes TO authenticated USING ({OWN}) WITH CHECK ({OWN});
GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO authenticated;
CREATE TABLE feed (line text, at timestamptz DEFAULT now());
GRANT SELECT ON feed TO authenticated;
"""


def trigger(body: str, event: str = "AFTER INSERT", rights: str = "SECURITY DEFINER") -> str:
    """Return a trigger of the table notes whose function has *rights*."""
    return f"""
    CREATE FUNCTION put() RETURNS trigger LANGUAGE plpgsql {rights} SET search_path = ''
      AS $put$ DECLARE found_title text; BEGIN {body}; RETURN NEW; END $put$;
    CREATE TRIGGER put {event} ON notes FOR EACH ROW EXECUTE FUNCTION put();
    """


FEED = trigger("INSERT INTO public.feed SELECT d.title FROM public.docs AS d")
_TITLE = "(SELECT d.title FROM public.docs AS d ORDER BY d.id DESC LIMIT 1)"

#: A trigger, and the level of the finding.
READS: dict[str, tuple[str, str | None]] = {
    "rows that it copies into a table of the callers": (FEED, "error"),
    "a value that the new row gets": (trigger(f"NEW.words := {_TITLE}", "BEFORE INSERT"), "error"),
    "a value that a changed row gets": (
        trigger(f"UPDATE public.notes SET words = {_TITLE} WHERE id = NEW.id", "AFTER UPDATE OF org_id"),
        "error",
    ),
    "rows that it copies when a row is deleted": (
        trigger("INSERT INTO public.feed SELECT d.title FROM public.docs AS d", "AFTER DELETE"),
        "error",
    ),
    "whole rows, as JSON": (
        trigger("INSERT INTO public.feed SELECT to_jsonb(d)::text FROM public.docs AS d"),
        "error",
    ),
    "the number of a row": (
        trigger("INSERT INTO public.feed SELECT d.id::text FROM public.docs AS d"),
        "error",
    ),
    "the message of an error": (
        trigger(f"found_title := {_TITLE}; RAISE EXCEPTION 'not after %', found_title", "BEFORE INSERT"),
        "error",
    ),
    "a function that the trigger function calls": (
        f"""CREATE FUNCTION last_title() RETURNS text LANGUAGE sql SET search_path = ''
          AS $$ SELECT {_TITLE} $$;
        {trigger("NEW.words := public.last_title()", "BEFORE INSERT")}""",
        "error",
    ),
    "rows of the table itself": (
        trigger("NEW.words := (SELECT string_agg(n.words, ',') FROM public.notes AS n)", "BEFORE INSERT"),
        "error",
    ),
    "rows of a table that a view shows": (
        f"""REVOKE SELECT ON feed FROM authenticated; CREATE VIEW lines AS SELECT line FROM feed;
        GRANT SELECT ON lines TO authenticated; {FEED}""",
        "error",
    ),
    "rows that policies of its owner admit": (
        f"""CREATE ROLE reporting; GRANT USAGE, CREATE ON SCHEMA public TO reporting; {FEED}
        GRANT SELECT ON docs, feed TO reporting; GRANT INSERT ON feed TO reporting;
        CREATE POLICY r ON docs TO reporting USING (true); ALTER FUNCTION put() OWNER TO reporting""",
        "error",
    ),
    "a body that asks who calls, and copies rows of others": (
        trigger(
            "INSERT INTO public.feed SELECT auth.user_id() || ' sees ' || d.title FROM public.docs AS d",
        ),
        "error",
    ),
    "the row whose number the caller gives": (
        trigger(
            "SELECT d.title INTO NEW.words FROM public.docs AS d WHERE d.id = NEW.doc_id", "BEFORE INSERT"
        ),
        "warning",
    ),
    "a table on which callers have no privilege": (
        f"REVOKE ALL ON docs FROM authenticated; {FEED}",
        "warning",
    ),
    "an audit of the new rows": (
        trigger("INSERT INTO public.feed VALUES (NEW.id || ' ' || NEW.words)"),
        None,
    ),
    "rows of a table that callers don't read": (f"REVOKE SELECT ON feed FROM authenticated; {FEED}", None),
    "rows of a table of which callers read none": (
        f"ALTER TABLE feed ENABLE ROW LEVEL SECURITY; {FEED}",
        None,
    ),
    "rows of the caller": (
        trigger(
            "INSERT INTO public.feed SELECT d.title FROM public.docs AS d WHERE d.owner_id = auth.user_id()"
        ),
        None,
    ),
    "rows of the caller, in a table on which callers have no privilege": (
        "REVOKE ALL ON docs FROM authenticated;"
        + trigger(
            "SELECT d.title INTO NEW.words FROM public.docs AS d WHERE d.owner_id = auth.user_id()",
            "BEFORE INSERT",
        ),
        None,
    ),
    "a number of rows": (
        trigger("INSERT INTO public.feed SELECT count(*)::text FROM public.docs AS d WHERE d.org_id > 0"),
        None,
    ),
    "a check": (
        trigger(
            "IF EXISTS (SELECT FROM public.docs AS d WHERE d.id = NEW.doc_id) THEN "
            "RAISE EXCEPTION 'doc % is taken', NEW.doc_id; END IF",
            "BEFORE INSERT",
        ),
        None,
    ),
    "a counter": (
        """ALTER TABLE docs ADD COLUMN notes int NOT NULL DEFAULT 0;"""
        + trigger("UPDATE public.docs SET notes = notes + 1 WHERE id = NEW.doc_id"),
        None,
    ),
    "a row that a policy then admits": (
        """CREATE TABLE members (doc_id int, user_id text); GRANT SELECT ON members TO authenticated;
        CREATE POLICY m ON docs FOR SELECT TO authenticated USING (
          id IN (SELECT m.doc_id FROM members AS m WHERE m.user_id = (SELECT auth.user_id())));"""
        + trigger("INSERT INTO public.members SELECT d.id, NEW.owner_id FROM public.docs AS d"),
        None,
    ),
    "a value that a policy of the table refuses": (
        """ALTER POLICY own ON notes WITH CHECK (org_id IN (SELECT d.org_id FROM docs AS d));"""
        + trigger(
            "SELECT d.org_id INTO NEW.org_id FROM public.docs AS d WHERE d.id = NEW.doc_id", "BEFORE INSERT"
        ),
        None,
    ),
    "callers who can't fire it": (f"REVOKE INSERT ON notes FROM authenticated; {FEED}", None),
    "a trigger that is off": (f"{FEED} ALTER TABLE notes DISABLE TRIGGER put", None),
    "the rights of the caller": (
        "GRANT INSERT ON feed TO authenticated;"
        + trigger("INSERT INTO public.feed SELECT d.title FROM public.docs AS d", rights=""),
        None,
    ),
}


@table("name", READS)
def test_a_trigger_function_shows_rows_that_policies_hide(examples: Examples, name: str) -> None:
    sql, level = READS[name]

    found = examples.look(f"{TABLES}{sql};", select=["definer-reads-protected"])

    assert shown(found) == ([f"{level} definer-reads-protected public.put()"] if level else [])


def test_a_caller_reads_hidden_rows_by_a_trigger(examples: Examples) -> None:
    with undone(examples.connection):
        run(
            examples.connection,
            f"""{TABLES}{FEED}
            INSERT INTO docs VALUES (1, 'alice', 1, 'of alice');
            SET LOCAL ROLE authenticated;
            SELECT set_config('request.jwt.claims', '{{"sub": "bob"}}', true);
            INSERT INTO notes VALUES (1, 'bob');
            """,
        )
        assert examples.connection.scalars(text("SELECT title FROM docs")).all() == []
        assert examples.connection.scalars(text("SELECT line FROM feed")).all() == ["of alice"]
    (found,) = examples.look(f"{TABLES}{FEED}", select=["definer-reads-protected"]).findings

    assert (found.object, found.level, found.role) == ("public.put()", "error", "authenticated")
    assert (
        found.text
        == "Trigger function public.put() shows its callers values of public.docs that policies hide."
    )
    counterexample, catalog = found.evidence
    assert "INSERT INTO public.notes" in counterexample.text
    assert "public.feed" in counterexample.text
    assert catalog.text == (
        "authenticated may INSERT into public.notes, whose trigger put calls it; row security of public.docs "
        "doesn't hold for its owner postgres"
    )


@pytest.mark.exhaustive
def test_a_trigger_function_that_no_parser_reads_is_unknown(examples: Examples) -> None:
    sql = trigger("EXECUTE 'INSERT INTO public.feed SELECT ' || quote_literal(NEW.words)")

    found = examples.look(f"{TABLES}{sql}", select=["definer-reads-protected"])

    assert unknown(found) == [
        "Rule definer-reads-protected has no answer about the access of role authenticated to public.put()."
    ]


@pytest.mark.exhaustive
def test_statements_that_no_world_runs_leave_a_trigger_function_unknown(examples: Examples) -> None:
    never = "CREATE TRIGGER a BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION never();"
    sql = f"""{FEED} CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql
      AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = '23514'; END $$; {never}"""

    found = examples.look(f"{TABLES}{sql}", select=["definer-reads-protected"])

    assert len(unknown(found)) == len(found.findings) == 1


@pytest.mark.exhaustive
def test_a_trigger_that_callers_fire_by_a_foreign_key_only_is_unknown(examples: Examples) -> None:
    sql = f"""{trigger("INSERT INTO public.feed SELECT d.title FROM public.docs AS d", "AFTER DELETE")}
    CREATE TABLE folders (id int PRIMARY KEY); GRANT DELETE ON folders TO authenticated;
    REVOKE INSERT, UPDATE, DELETE ON notes FROM authenticated;
    ALTER TABLE notes ADD COLUMN folder_id int REFERENCES folders ON DELETE CASCADE;"""

    found = examples.look(f"{TABLES}{sql}", select=["definer-reads-protected"])

    assert len(unknown(found)) == len(found.findings) == 1


@pytest.mark.exhaustive
def test_the_function_of_an_event_trigger_shows_no_rows(examples: Examples) -> None:
    sql = """CREATE FUNCTION put() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
      AS $$ BEGIN INSERT INTO public.feed SELECT title FROM public.docs; END $$;
    CREATE EVENT TRIGGER put ON ddl_command_end EXECUTE FUNCTION put();"""

    assert shown(examples.look(f"{TABLES}{sql}", select=["definer-reads-protected"])) == []


#: A trigger, and whether pgrls is told that our rules looked at its function without a finding.
EXPORTED = {
    "a sound one": (READS["an audit of the new rows"][0], True),
    "one that shows hidden rows": (FEED, False),
    "one that no parser reads": (trigger("EXECUTE 'SELECT 1'"), False),
    "one with the search_path of callers": (
        f"{trigger('NULL')} ALTER FUNCTION put() RESET search_path",
        False,
    ),
    "a function without a trigger that no parser reads": (
        """CREATE FUNCTION put() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
          AS $$ BEGIN EXECUTE 'SELECT 1'; END $$""",
        False,
    ),
}


@pytest.mark.exhaustive
def test_pgrls_is_told_of_the_trigger_functions_that_are_sound(
    examples: Examples, subtests: pytest.Subtests
) -> None:
    for name, (sql, is_allowed) in EXPORTED.items():
        with subtests.test(name), undone(examples.connection):
            run(examples.connection, f"{TABLES}{sql};")
            database = examples.database()
            report = lint(database, target="app")
            written = pgrls_config(database, report.findings, [rule.name for rule in report.rules])

            told = tomllib.loads(written)["lint"]["rules"].get("SEC014", {"allowlist": []})
            assert told["allowlist"] == (["public.put"] if is_allowed else [])
