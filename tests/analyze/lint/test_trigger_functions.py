"""Trigger functions with the rights of their owners, which callers run by writing."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from sqla_rls.catalog.query import undone
from tests.analyze.lint.examples import OWN, TABLE, Examples, run, shown

LOG = """
CREATE TABLE entries (who text);
CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER {path}
  AS 'BEGIN INSERT INTO entries VALUES (current_user); RETURN NULL; END';
REVOKE ALL ON FUNCTION log() FROM PUBLIC;
"""

#: The search_path of a trigger function with the rights of its owner, its trigger, more SQL, is it found?
TRIGGERS = {
    "no search_path": ("", "AFTER INSERT ON docs", "", True),
    "a safe search_path": ("SET search_path = ''", "AFTER INSERT ON docs", "", False),
    "a temporary table comes first": (
        "SET search_path = public",
        "AFTER INSERT ON docs",
        "GRANT TEMPORARY ON DATABASE app TO authenticated",
        True,
    ),
    "TRUNCATE": ("", "AFTER TRUNCATE ON docs", "GRANT TRUNCATE ON docs TO authenticated", True),
    "a command without a privilege": ("", "AFTER TRUNCATE ON docs", "", False),
    "a table that callers don't write": ("", "AFTER INSERT ON members", "", False),
    "one column": ("", "AFTER UPDATE ON members", "GRANT UPDATE (org_id) ON members TO authenticated", True),
    "disabled": ("", "AFTER INSERT ON docs", "ALTER TABLE docs DISABLE TRIGGER log", False),
    "a view": (
        "",
        "AFTER INSERT ON members",
        "CREATE VIEW v AS SELECT * FROM members; GRANT INSERT ON v TO authenticated",
        True,
    ),
    "a rule": (
        "",
        "AFTER INSERT ON members",
        "CREATE RULE r AS ON DELETE TO docs DO ALSO INSERT INTO members VALUES (1, 'bob')",
        True,
    ),
    "a cascade": (
        "",
        "AFTER DELETE ON members",
        "ALTER TABLE members ADD FOREIGN KEY (org_id) REFERENCES docs (id) ON DELETE CASCADE",
        True,
    ),
    "no cascade": (
        "",
        "AFTER DELETE ON members",
        "ALTER TABLE members ADD FOREIGN KEY (org_id) REFERENCES docs (id)",
        False,
    ),
    "a parent": (
        "",
        "AFTER DELETE ON members FOR EACH ROW",
        """CREATE TABLE people (org_id int, user_id text NOT NULL); ALTER TABLE members INHERIT people;
        GRANT DELETE ON people TO authenticated""",
        True,
    ),
    "a trigger that callers create": (
        "",
        "AFTER INSERT ON members",
        "GRANT EXECUTE ON FUNCTION log() TO authenticated; GRANT CREATE ON SCHEMA public TO authenticated",
        True,
    ),
}


@pytest.mark.exhaustive
def test_callers_run_trigger_functions_by_writing(examples: Examples, subtests: pytest.Subtests) -> None:
    for name, (path, trigger, more, is_found) in TRIGGERS.items():
        with subtests.test(name):
            found = examples.look(
                f"""{TABLE}{LOG.format(path=path)}
                CREATE TRIGGER log {trigger} EXECUTE FUNCTION log(); {more};""",
                select=["definer-search-path"],
            )
            expected = ["warning definer-search-path public.log()"] if is_found else []
            assert shown(found) == expected


@pytest.mark.exhaustive
def test_each_role_runs_the_function_of_an_event_trigger(examples: Examples) -> None:
    sql = """CREATE FUNCTION log() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN END';"""
    event = "CREATE EVENT TRIGGER log ON ddl_command_start EXECUTE FUNCTION log();"
    for more, expected in {
        event: ["warning definer-search-path public.log()"],
        "": [],
        f"{event} ALTER EVENT TRIGGER log DISABLE": [],
        f"{event} ALTER FUNCTION log() SET search_path = ''": [],
    }.items():
        assert shown(examples.look(sql + more, select=["definer-search-path"])) == expected


def test_a_caller_shadows_the_tables_of_a_trigger_function(examples: Examples) -> None:
    made = f"""{TABLE}{LOG.format(path="")}
    CREATE TRIGGER log AFTER INSERT ON docs EXECUTE FUNCTION log();
    CREATE POLICY own ON docs FOR INSERT TO authenticated WITH CHECK ({OWN});
    GRANT TEMPORARY ON DATABASE app TO authenticated;
    """
    with undone(examples.connection):
        run(
            examples.connection,
            f"""{made}
            SET LOCAL ROLE authenticated;
            SELECT set_config('request.jwt.claims', '{{"sub": "bob"}}', true);
            CREATE TEMPORARY TABLE entries (who text);
            GRANT INSERT ON entries TO PUBLIC;
            INSERT INTO docs VALUES (1, 1, 'bob', false);
            """,
        )
        ran_as = examples.connection.scalar(text("SELECT who FROM pg_temp.entries"))
        assert ran_as == examples.connection.scalar(text("SELECT session_user"))
    (found,) = examples.look(made, select=["definer-search-path"]).findings

    assert found.object == "public.log()"
    assert found.evidence[0].text == (
        "anonymous, authenticated may INSERT into public.docs, whose trigger log calls it; "
        "its search_path is that of the caller"
    )
