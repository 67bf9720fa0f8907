"""The worlds have each kind of row, with each kind of the rows that decide about it."""

from __future__ import annotations

import pytest

from sqla_rls.analyze.verdict import Budget
from tests.support.replay import replay
from tests.support.suite import table
from tests.support.worlds import Sides, verdicts


@pytest.mark.exhaustive
def test_a_null_in_a_unique_key_is_a_row(sides: Sides) -> None:
    setup = """CREATE TABLE codes (code text UNIQUE); ALTER TABLE codes ENABLE ROW LEVEL SECURITY;
    CREATE POLICY known ON codes TO other USING (code = 'x'); GRANT SELECT, DELETE ON codes TO other;"""
    change = "ALTER POLICY known ON codes USING (code = 'x' OR code IS NULL);"
    with sides.compared(change, setup=setup) as (found, *_):
        assert verdicts(found) == {("public.codes", "other", one): "opens" for one in ("SELECT", "DELETE")}


NOTES = """CREATE TABLE notes (id int PRIMARY KEY, kind text NOT NULL, iban text NOT NULL{});
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY known ON notes FOR SELECT TO other USING (kind = 'public'); GRANT SELECT ON notes TO other;"""
NOTES_CHANGE = "ALTER POLICY known ON notes USING (kind IN ('public', 'secret'));"


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "constraint",
    [
        ", CHECK (kind <> 'secret' OR char_length(iban) = 22)",
        "); ALTER TABLE notes ADD CHECK (kind <> 'secret') NOT VALID; CREATE TABLE any_ (id int",
        """); CREATE TABLE kinds (kind text PRIMARY KEY, iban text NOT NULL CHECK (char_length(iban) = 22));
        ALTER TABLE notes ADD FOREIGN KEY (kind) REFERENCES kinds NOT VALID; CREATE TABLE any_ (id int""",
    ],
)
def test_rows_that_constraints_keep_out_of_the_worlds_are_left_out(sides: Sides, constraint: str) -> None:
    with sides.compared(NOTES_CHANGE, setup=NOTES.format(constraint)) as (found, *_):
        assert not found.changes
        assert found.unknown or any(
            one.startswith("public.notes: no row with kind=secret was tried: 23")
            for one in found.scope.left_out
        )


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "constraint", ["CHECK (kind <> 'secret')", "CHECK (kind IN ('public', 'private', 'alice'))"]
)
def test_rows_that_no_table_can_have_are_not_left_out(sides: Sides, constraint: str) -> None:
    with sides.compared(NOTES_CHANGE, setup=NOTES.format(f", {constraint}")) as (found, *_):
        assert {(one.object, one.role) for one in found.same} == {("public.notes", "other")}
        assert not found.scope.left_out


TREE = """
CREATE TABLE folders (id int PRIMARY KEY, parent_id int REFERENCES folders {}, owner text NOT NULL);
CREATE FUNCTION around() RETURNS SETOF int LANGUAGE sql STABLE SECURITY DEFINER
  SET search_path = public, pg_temp AS 'SELECT NULL::int';
ALTER TABLE folders ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON folders TO reader USING (owner = (SELECT auth.user_id()) OR id IN (SELECT around()));
GRANT SELECT ON folders TO reader;
"""
AROUND = """
CREATE OR REPLACE FUNCTION around() RETURNS SETOF int LANGUAGE sql STABLE SECURITY DEFINER
  SET search_path = public, pg_temp AS '{}'
"""


@table("check", ["", "CHECK (parent_id <> id)"])
@table(
    "body",
    [
        "SELECT parent_id FROM folders WHERE owner = (SELECT auth.user_id())",
        "SELECT c.id FROM folders c JOIN folders p ON p.id = c.parent_id WHERE p.owner = auth.user_id()",
    ],
    ids=["parents", "children"],
)
def test_parents_and_children_in_a_tree_are_tried(sides: Sides, check: str, body: str) -> None:
    with sides.compared(AROUND.format(body), setup=TREE.format(check)) as (found, *_):
        assert verdicts(found)["public.folders", "reader", "SELECT"] == "opens"


ME = "(SELECT auth.user_id())"
TASKS = f"""
CREATE TABLE orgs (id int PRIMARY KEY, owner text NOT NULL, plan text NOT NULL, suspended boolean NOT NULL);
CREATE TABLE projects (id int PRIMARY KEY, org_id int NOT NULL REFERENCES orgs, lead text NOT NULL,
  archived boolean NOT NULL, public boolean NOT NULL);
CREATE TABLE tasks (id int PRIMARY KEY, project_id int NOT NULL REFERENCES projects, assignee text NOT NULL,
  state text NOT NULL, hidden boolean NOT NULL);
CREATE TABLE watchers (task_id int NOT NULL REFERENCES tasks, user_id text);
ALTER TABLE tasks ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE ON tasks TO reader; GRANT SELECT ON orgs, projects, watchers TO reader;
CREATE POLICY p ON tasks TO reader USING (NOT hidden AND state <> 'draft' AND (assignee = {ME}
  OR EXISTS (SELECT FROM watchers w WHERE w.task_id = tasks.id AND w.user_id = {ME})
  OR EXISTS (SELECT FROM projects p JOIN orgs o ON o.id = p.org_id
    WHERE p.id = tasks.project_id AND NOT p.archived
      AND (p.lead = {ME} OR p.public AND o.plan = 'team' OR o.owner = {ME} AND NOT o.suspended))));
"""
FILES = f"""
CREATE TABLE tenants (id int PRIMARY KEY, kind text NOT NULL);
CREATE TABLE folders (tenant_id int REFERENCES tenants, id int, owner text NOT NULL, private boolean NOT NULL,
  kind text NOT NULL, PRIMARY KEY (tenant_id, id));
CREATE TABLE seats (tenant_id int REFERENCES tenants, user_id text, role text NOT NULL,
  PRIMARY KEY (tenant_id, user_id));
CREATE TABLE files (id int PRIMARY KEY, tenant_id int NOT NULL, folder_id int NOT NULL, owner text NOT NULL,
  deleted_at timestamptz, FOREIGN KEY (tenant_id, folder_id) REFERENCES folders);
ALTER TABLE files ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE ON files TO reader; GRANT SELECT ON tenants, folders, seats TO reader;
CREATE POLICY p ON files TO reader USING (deleted_at IS NULL
  AND tenant_id IN (SELECT s.tenant_id FROM seats s WHERE s.user_id = {ME} AND s.role IN ('editor', 'owner'))
  AND (owner = {ME} OR EXISTS (SELECT FROM folders f WHERE f.id = folder_id AND f.tenant_id = files.tenant_id
    AND (f.owner = {ME} OR NOT f.private AND f.kind = 'shared'))));
"""
NO_DRAFTS = """
CREATE FUNCTION no_teams() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF new.plan = 'team' AND new.suspended THEN RAISE EXCEPTION 'no such team'; END IF;
  RETURN new;
END $$;
CREATE TRIGGER no_teams BEFORE INSERT ON orgs FOR EACH ROW EXECUTE FUNCTION no_teams();
"""


def altered(setup: str, old: str, new: str) -> str:
    assert setup.count(old) == 1
    policy = setup.replace(old, new).partition("CREATE POLICY")[2].partition(";")[0]
    return f"ALTER POLICY{policy}".replace(" TO reader USING", " USING")


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("setup", "old", "new", "rows"),
    [
        (TASKS, "p.public AND o.plan = 'team'", "p.public", 3),
        (TASKS, "AND NOT o.suspended", "AND (NOT o.suspended OR p.public)", 3),
        (TASKS + NO_DRAFTS, "AND NOT o.suspended", "AND (NOT o.suspended OR p.public)", 3),
        (TASKS, "w.task_id = tasks.id AND ", "", 7),
        (FILES, "NOT f.private AND ", "", 4),
        (FILES, " AND f.kind = 'shared'", "", 4),
    ],
    ids=["plan", "suspended", "a row is refused", "a watcher of another task", "private", "kind"],
)
def test_each_kind_of_the_rows_that_decide_about_a_row_is_tried(
    sides: Sides, setup: str, old: str, new: str, rows: int
) -> None:
    with sides.compared(altered(setup, old, new), setup=setup, budget=Budget()) as (found, before, after):
        commands = [one.command for one in found.changes if one.role == "reader"]
        assert commands == ["INSERT", "SELECT", "UPDATE"]
        for one in found.changes:
            assert one.verdict == "opens"
            assert sum(map(len, one.counterexample.rows.values())) <= rows
            assert replay(before, one.role, one.counterexample) == one.counterexample.before
            assert replay(after, one.role, one.counterexample) == one.counterexample.after


@pytest.mark.exhaustive
@pytest.mark.parametrize("moves", ["project_id", "state"])
def test_an_update_may_refer_to_each_kind_of_row(sides: Sides, moves: str) -> None:
    policy = f"""
DROP POLICY p ON tasks; REVOKE UPDATE, INSERT ON tasks FROM reader; GRANT UPDATE ({moves}) ON tasks TO reader;
CREATE POLICY p ON tasks TO reader USING (assignee = {ME})
  WITH CHECK (assignee = {ME}
    AND EXISTS (SELECT FROM projects p WHERE p.id = tasks.project_id AND p.lead = {ME}));
"""
    change = f"""
ALTER POLICY p ON tasks WITH CHECK (assignee = {ME}
  AND EXISTS (SELECT FROM projects p JOIN orgs o ON o.id = p.org_id WHERE p.id = tasks.project_id
    AND (p.lead = {ME} OR NOT p.archived AND p.public AND o.suspended AND o.plan = 'team')))
"""
    with sides.compared(change, setup=TASKS + policy, budget=Budget()) as (found, *_):
        assert verdicts(found) == {("public.tasks", role, "UPDATE"): "opens" for role in ("member", "reader")}


def test_combinations_that_the_budget_leaves_out_are_named(sides: Sides) -> None:
    change = altered(TASKS, "p.public AND o.plan = 'team'", "p.public")
    with sides.compared(change, setup=TASKS, budget=Budget(worlds=5)) as (found, *_):
        assert any(
            one.startswith("public.tasks: of 3072 combinations of a row with the rows that decide about it, ")
            for one in found.scope.left_out
        )


@pytest.mark.exhaustive
def test_values_of_the_other_columns_of_a_constraint_are_tried(sides: Sides) -> None:
    constraint = ", CHECK (kind <> 'secret' OR iban = 'none')"
    with sides.compared(NOTES_CHANGE, setup=NOTES.format(constraint)) as (found, *_):
        assert verdicts(found) == {("public.notes", "other", "SELECT"): "opens"}
        assert not found.scope.left_out


SHARED_FILES = """
CREATE FUNCTION tenant() RETURNS uuid LANGUAGE sql STABLE
  RETURN (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'tenant_id')::uuid;
CREATE TABLE folders (id uuid PRIMARY KEY, tenant_id uuid NOT NULL, is_open boolean NOT NULL);
CREATE TABLE files (id uuid PRIMARY KEY, tenant_id uuid NOT NULL, folder_id uuid NOT NULL,
  owner_id text NOT NULL, meta jsonb NOT NULL, deleted_at timestamptz);
CREATE TABLE shares (id uuid PRIMARY KEY, file_id uuid NOT NULL REFERENCES files, user_id text, team_id uuid,
  expires_at timestamptz NOT NULL, CHECK (num_nonnulls(user_id, team_id) = 1));
ALTER TABLE files ENABLE ROW LEVEL SECURITY;
CREATE POLICY claim ON files AS RESTRICTIVE USING (tenant_id = tenant());
CREATE POLICY seen ON files FOR SELECT TO other USING (deleted_at IS NULL AND (owner_id = auth.user_id()
  OR EXISTS (SELECT FROM folders AS f WHERE f.id = files.folder_id AND f.is_open)
  OR EXISTS (SELECT FROM shares AS s WHERE s.file_id = files.id AND s.user_id = auth.user_id()
     AND s.expires_at > now())
  OR EXISTS (SELECT FROM shares AS s WHERE s.file_id = files.id AND s.team_id = tenant()
     AND s.expires_at > now())));
GRANT SELECT ON files, folders, shares TO other;
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "share",
    [
        "s.file_id = files.id AND s.user_id = auth.user_id()",
        "s.user_id = auth.user_id() AND s.expires_at > now()",
    ],
)
def test_shares_count_though_a_row_needs_null_and_the_claim_of_its_tenant(sides: Sides, share: str) -> None:
    change = f"""ALTER POLICY seen ON files USING (deleted_at IS NULL AND (owner_id = auth.user_id()
    OR EXISTS (SELECT FROM folders AS f WHERE f.id = files.folder_id AND f.is_open)
    OR EXISTS (SELECT FROM shares AS s WHERE {share})
    OR EXISTS (SELECT FROM shares AS s WHERE s.file_id = files.id AND s.team_id = tenant()
       AND s.expires_at > now())));"""
    with sides.compared(change, setup=SHARED_FILES, budget=Budget()) as (found, *_):
        assert verdicts(found) == {("public.files", "other", "SELECT"): "opens"}
