"""What policies imply."""

from __future__ import annotations

from typing import Any

import pytest

from sqla_rls.objects import OwnedSequence, Policy, Privilege, TableKey, implied_privileges

NOTES = TableKey(None, "notes")
SEQUENCES = {OwnedSequence(NOTES, "id"): TableKey(None, "notes_id_seq")}


def implied(policy: Policy, *, auth_functions: bool = False) -> set[Privilege]:
    return set(
        implied_privileges([policy], SEQUENCES, default_schema="public", auth_functions=auth_functions)
    )


@pytest.mark.parametrize("command", ["SELECT", "INSERT", "UPDATE", "DELETE"])
def test_a_policy_implies_what_its_command_needs_and_no_more(command: str) -> None:
    policy = Policy(table=NOTES, name="it", command=command, roles=frozenset({"reader"}))
    expected = {
        Privilege("SCHEMA", None, "public", "reader", "USAGE"),
        Privilege("TABLE", None, "notes", "reader", command),
    }
    if command == "INSERT":
        expected.add(Privilege("SEQUENCE", None, "notes_id_seq", "reader", "USAGE"))
    assert implied(policy) == expected
    functions = Privilege("SCHEMA", None, "auth", "reader", "USAGE")
    assert implied(policy, auth_functions=True) == expected | {functions}


def test_a_restrictive_policy_implies_nothing() -> None:
    assert implied(Policy(table=NOTES, name="it", permissive=False)) == set()


def test_whoever_migrates_needs_nothing() -> None:
    assert implied(Policy(table=NOTES, name="it", roles=frozenset({"CURRENT_USER"}))) == set()


def test_sequences_are_read_once_however_many_policies_there_are() -> None:
    class Counted(dict[OwnedSequence, TableKey]):
        reads = 0

        def items(self) -> Any:
            self.reads += 1
            return super().items()

    tables = [TableKey(None, f"table_{number}") for number in range(3)]
    sequences = Counted({OwnedSequence(one, "id"): TableKey(None, f"{one.name}_id_seq") for one in tables})
    policies = [Policy(table=one, name="it", command="INSERT") for one in tables]
    found = set(implied_privileges(policies, sequences, default_schema="public", auth_functions=False))
    assert {one.name for one in found if one.object_type == "SEQUENCE"} == {
        "table_0_id_seq",
        "table_1_id_seq",
        "table_2_id_seq",
    }
    assert sequences.reads == 1
