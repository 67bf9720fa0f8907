"""Foreign keys reveal hidden rows, unless a subquery of the policy looks the key up."""

from __future__ import annotations

import pytest

from tests.analyze.lint.examples import OWN, TABLE, Examples, policy, shown


@pytest.mark.exhaustive
def test_a_reference_that_a_subquery_looks_up_reveals_no_row(
    examples: Examples, subtests: pytest.Subtests
) -> None:
    """The subquery finds no hidden row: both keys are denied by the policy, and not by the foreign key."""
    notes = f"""
        CREATE TABLE notes (id int PRIMARY KEY, owner_id text NOT NULL, doc_id int REFERENCES docs);
        ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
        GRANT INSERT ON notes TO authenticated;
        {policy(OWN)}
        CREATE POLICY write ON notes FOR INSERT TO authenticated WITH CHECK ({OWN} AND {{condition}});
    """
    found = ["info foreign-key-reveals-rows public.notes"]
    for condition, expected in {
        "EXISTS (SELECT FROM docs WHERE docs.id = notes.doc_id)": [],
        "doc_id IN (SELECT docs.id FROM docs)": [],
        "doc_id NOT IN (SELECT docs.id FROM docs)": found,
        "EXISTS (SELECT FROM docs WHERE docs.id = notes.doc_id OR notes.doc_id > 0)": found,
        "EXISTS (SELECT FROM docs WHERE docs.id = docs.org_id)": found,
        "(doc_id IN (SELECT docs.id FROM docs) OR doc_id > 0)": found,
        # The subquery has a row, or the key itself, whichever documents there are.
        "EXISTS (SELECT max(docs.id) FROM docs WHERE docs.id = notes.doc_id)": found,
        "EXISTS (SELECT FROM docs WHERE docs.id = notes.doc_id HAVING true)": found,
        "EXISTS (SELECT 1 FROM docs WHERE docs.id = notes.doc_id ORDER BY count(*))": found,
        "EXISTS (SELECT FROM docs WHERE docs.id = notes.doc_id UNION ALL SELECT)": found,
        "doc_id IN (SELECT notes.doc_id FROM docs)": found,
        "doc_id IN (SELECT generate_series(1, 9) FROM docs)": found,
        "doc_id IN (WITH docs AS (SELECT generate_series(1, 9) AS id) SELECT docs.id FROM docs)": found,
    }.items():
        with subtests.test(condition):
            sql = TABLE + notes.format(condition=condition)
            assert shown(examples.look(sql, select=["foreign-key-reveals-rows"])) == expected


def test_a_part_of_a_key_that_a_subquery_looks_up_reveals_the_others(examples: Examples) -> None:
    sql = f"""{TABLE}
        ALTER TABLE docs ADD UNIQUE (org_id, id);
        CREATE TABLE notes (
          id int PRIMARY KEY, owner_id text, org_id int, doc_id int,
          FOREIGN KEY (org_id, doc_id) REFERENCES docs (org_id, id)
        );
        ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
        GRANT INSERT ON notes TO authenticated;
        {policy(OWN)}
        CREATE POLICY write ON notes FOR INSERT TO authenticated
          WITH CHECK ({OWN} AND org_id IN (SELECT docs.org_id FROM docs));
    """
    found = shown(examples.look(sql, select=["foreign-key-reveals-rows"]))
    assert found == ["info foreign-key-reveals-rows public.notes"]
