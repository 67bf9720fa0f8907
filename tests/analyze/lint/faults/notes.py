"""Constraints that reveal hidden rows."""

from __future__ import annotations

from typing import Final

from tests.analyze.lint.faults.case import DOCS, DOCS_ROWS, OWN_DOCS, Fault, Look

FAULTS: Final = [
    Fault(
        name="A UNIQUE constraint reveals the names of other owners' documents",
        group="notes",
        rule="unique-reveals-rows",
        objects=("public.docs",),
        schema=DOCS + OWN_DOCS + "ALTER TABLE docs ADD UNIQUE (body);",
        rows=DOCS_ROWS,
        mend="ALTER TABLE docs DROP CONSTRAINT docs_body_key; ALTER TABLE docs ADD UNIQUE (owner, body);",
        shows=(Look(statement="INSERT INTO docs VALUES (3, 'alice', 'b')", faulty="23505", mended=1),),
    ),
    Fault(
        name="A unique index on an expression reveals the names of other owners' documents",
        group="notes",
        rule="unique-reveals-rows",
        objects=("public.docs",),
        schema=DOCS + OWN_DOCS + "CREATE UNIQUE INDEX docs_lower ON docs (lower(body));",
        rows=DOCS_ROWS,
        mend="DROP INDEX docs_lower; CREATE UNIQUE INDEX docs_lower ON docs (owner, lower(body));",
        shows=(Look(statement="INSERT INTO docs VALUES (3, 'alice', 'B')", faulty="23505", mended=1),),
    ),
    Fault(
        name="An exclusion constraint reveals other owners' bookings",
        group="notes",
        rule="unique-reveals-rows",
        objects=("public.docs",),
        schema=DOCS
        + OWN_DOCS
        + "ALTER TABLE docs ADD COLUMN during int4range;"
        + "ALTER TABLE docs ADD CONSTRAINT free EXCLUDE USING gist (during WITH &&);",
        rows="INSERT INTO docs VALUES (2, 'bob', 'b', '[10,20)');",
        mend="ALTER TABLE docs DROP CONSTRAINT free;",
        shows=(
            Look(statement="INSERT INTO docs VALUES (3, 'alice', '', '[15,16)')", faulty="23P01", mended=1),
        ),
    ),
    Fault(
        name="A foreign key reveals which hidden rows exist",
        group="notes",
        rule="foreign-key-reveals-rows",
        objects=("public.notes", "public.docs"),
        schema=DOCS
        + OWN_DOCS
        + """
CREATE TABLE notes (id int PRIMARY KEY, owner text NOT NULL, doc_id int REFERENCES docs);
CREATE INDEX notes_owner ON notes (owner);
CREATE INDEX notes_doc ON notes (doc_id);
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT ON notes TO authenticated;
CREATE POLICY read ON notes FOR SELECT TO authenticated USING (owner = (SELECT auth.user_id()));
CREATE POLICY add ON notes FOR INSERT TO authenticated WITH CHECK (owner = (SELECT auth.user_id()));
""",
        rows=DOCS_ROWS,
        mend="""
ALTER TABLE docs ADD UNIQUE (owner, id);
ALTER TABLE notes DROP CONSTRAINT notes_doc_id_fkey;
ALTER TABLE notes ADD FOREIGN KEY (owner, doc_id) REFERENCES docs (owner, id);
""",
        shows=(
            Look(statement="INSERT INTO notes VALUES (1, 'alice', 2)", faulty=1, mended="23503"),
            Look(statement="INSERT INTO notes VALUES (1, 'alice', 9)", faulty="23503", mended="23503"),
            Look(statement="INSERT INTO notes VALUES (1, 'alice', 1)", faulty=1, mended=1),
        ),
    ),
    Fault(
        name="A foreign key of hidden rows reveals that they exist, when their target is deleted",
        group="notes",
        rule="foreign-key-reveals-rows",
        objects=("public.notes", "public.docs"),
        schema=DOCS
        + OWN_DOCS
        + """
CREATE TABLE notes (id int PRIMARY KEY, owner text NOT NULL, doc_id int REFERENCES docs);
CREATE INDEX notes_owner ON notes (owner);
CREATE INDEX notes_doc ON notes (doc_id);
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON notes TO authenticated;
CREATE POLICY read ON notes FOR SELECT TO authenticated USING (owner = (SELECT auth.user_id()));
""",
        rows=DOCS_ROWS + "INSERT INTO notes VALUES (1, 'bob', 1);",
        mend="""
ALTER TABLE notes DROP CONSTRAINT notes_doc_id_fkey;
ALTER TABLE notes ADD FOREIGN KEY (doc_id) REFERENCES docs ON DELETE CASCADE;
""",
        shows=(Look(statement="DELETE FROM docs WHERE id = 1", faulty="23503", mended=1),),
    ),
]
