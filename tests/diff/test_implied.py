"""What policies imply."""

from __future__ import annotations

import pytest

from sqla_rls.diff.implied import implied_privileges
from sqla_rls.snapshot import CalledSequence, Policy, Privilege, SequenceKey, Snapshot, TableKey

NOTES = TableKey(None, "notes")
SNAPSHOT = Snapshot(sequences=frozenset({SequenceKey(None, "notes", "id")}))


def implied(policy: Policy, *, auth_functions: bool = False) -> set[Privilege]:
    return set(implied_privileges([policy], SNAPSHOT, default_schema="public", auth_functions=auth_functions))


@pytest.mark.parametrize("command", ["SELECT", "INSERT", "UPDATE", "DELETE"])
def test_a_policy_implies_what_its_command_needs_and_no_more(command: str) -> None:
    policy = Policy(table=NOTES, name="it", command=command, roles=frozenset({"reader"}))
    expected = {
        Privilege("SCHEMA", None, "public", "reader", "USAGE"),
        Privilege("TABLE", None, "notes", "reader", command),
    }
    if command == "INSERT":
        expected.add(Privilege("SEQUENCE", None, "notes", "reader", "USAGE", "id"))
    assert implied(policy) == expected
    functions = Privilege("SCHEMA", None, "auth", "reader", "USAGE")
    assert implied(policy, auth_functions=True) == expected | {functions}


def test_the_schema_of_a_sequence_is_not_that_of_the_table_for_the_next_role() -> None:
    called = CalledSequence(NOTES, SequenceKey("other", "numbers"))
    snapshot = Snapshot(called_sequences=frozenset({called}))
    policy = Policy(table=NOTES, name="it", command="INSERT", roles=frozenset({"reader", "writer"}))
    found = set(implied_privileges([policy], snapshot, default_schema="public", auth_functions=False))
    assert found == {
        one
        for role in ("reader", "writer")
        for one in (
            Privilege("SCHEMA", None, "public", role, "USAGE"),
            Privilege("TABLE", None, "notes", role, "INSERT"),
            Privilege("SEQUENCE", "other", "numbers", role, "USAGE"),
        )
    }


def test_a_restrictive_policy_implies_nothing() -> None:
    assert implied(Policy(table=NOTES, name="it", permissive=False)) == set()


def test_whoever_migrates_needs_nothing() -> None:
    assert implied(Policy(table=NOTES, name="it", roles=frozenset({"CURRENT_USER"}))) == set()
