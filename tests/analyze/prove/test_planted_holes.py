"""A proof notices each hole that it plants, and each mutant that opens rows."""

from __future__ import annotations

import pytest

from sqla_rls.analyze.prove import prove as module
from sqla_rls.analyze.prove.mutants import run
from sqla_rls.analyze.prove.prove import Prover, prove
from sqla_rls.analyze.prove.score import score
from sqla_rls.analyze.sides import Built, Side
from sqla_rls.analyze.verdict import Budget
from sqla_rls.analyze.why.explanation import COMMANDS
from sqla_rls.exc import AnalysisError
from tests.support.proofs import UPDATE, access_state_of, documents, keys
from todos.models import Base as Todos


@pytest.mark.exhaustive
def test_a_public_table_is_controlled_by_a_privilege_that_is_taken() -> None:
    table = documents(True)
    with Side.parse("models", models=table.metadata).build() as built:
        proof = prove(built.connection, [table.metadata])
    assert {one.command: one.control for one in proof.kept}["SELECT"] == "revoked"
    assert not proof.violations


@pytest.mark.exhaustive
def test_each_mutant_of_todos_is_found_or_equivalent(built: Built) -> None:
    before = access_state_of(built.connection)
    prover = Prover.of(built.connection, [Todos.metadata], Budget(worlds=30))
    scored = score(prover, prover.run((), (), None))
    assert str(scored).splitlines()[0] == "11 of 11 mutants found, 4 equivalent within the worlds tried."
    assert {one.kind for one in scored.equivalent} == {"public"}
    assert access_state_of(built.connection) == before


def test_a_run_that_would_notice_no_hole_is_an_error(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_opening", lambda relation, roles: [])
    with pytest.raises(AnalysisError, match=r"can't be trusted: it didn't notice .* on public\.todos"):
        prove(built.connection, [Todos.metadata])


AUDITED = """
CREATE TABLE audit_log (todo_id bigint);
GRANT INSERT ON audit_log TO authenticated;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN INSERT INTO public.audit_log VALUES (NEW.id); RETURN NEW; END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON todos FOR EACH ROW EXECUTE FUNCTION note();
"""


@pytest.mark.exhaustive
def test_a_trigger_that_denies_a_statement_hides_no_hole_that_is_planted() -> None:
    with Side.parse("models", models=Todos.metadata).build() as built:
        run(built.connection, [AUDITED])
        proof = prove(built.connection, [Todos.metadata])
        assert {(one.role, one.command) for one in proof.kept} == {
            (role, command) for role in ("anonymous", "authenticated") for command in COMMANDS
        }
        run(built.connection, [f"ALTER POLICY {UPDATE} WITH CHECK (true)"])
        assert keys(prove(built.connection, [Todos.metadata])) == {("authenticated", "UPDATE", "more")}
