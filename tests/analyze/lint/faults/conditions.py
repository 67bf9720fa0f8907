"""Policies with conditions on columns alone: true of as good as each row, or of the rows that are meant."""

from __future__ import annotations

from tests.analyze.lint.faults.case import (
    ANONYMOUS,
    AS_BOB,
    DENIED,
    IDS,
    NOTHING,
    OWN,
    Caller,
    Clean,
    Fault,
    Look,
    Works,
)


def _docs(columns: str, *policies: str) -> str:
    """A table of documents, of which each caller has their own, and more policies."""
    return f"""
CREATE TABLE docs (id int PRIMARY KEY, owner text NOT NULL, {columns});
CREATE INDEX docs_owner ON docs (owner);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO authenticated;
GRANT SELECT ON docs TO anonymous;
CREATE POLICY own ON docs TO authenticated USING ({OWN}) WITH CHECK ({OWN});
CREATE POLICY nothing ON docs FOR SELECT TO anonymous USING (false);
{"".join(f"CREATE POLICY {one};" for one in policies)}
"""


def _reads(name: str, using: str, columns: str = "body text", *, role: str = "authenticated") -> Fault:
    """A policy whose condition is true of the rows of each owner."""
    caller = ANONYMOUS if role == "anonymous" else Caller()
    return Fault(
        name=name,
        group="openings",
        rule="everyone-reads",
        objects=("public.docs",),
        schema=_docs(columns, f"filled ON docs FOR SELECT TO {role} USING ({using})"),
        rows="INSERT INTO docs VALUES (1, 'alice'), (2, 'bob');"
        + ("UPDATE docs SET body = 'x';" if columns.startswith("body") else ""),
        mend="DROP POLICY filled ON docs;",
        shows=(
            Look(
                statement=IDS,
                faulty=[1, 2],
                mended=NOTHING if role == "anonymous" else [1],
                caller=caller,
            ),
        ),
    )


def _writes(name: str, policy: str, statement: str, columns: str = "body text") -> Fault:
    """A policy with which callers write the rows of each owner."""
    return Fault(
        name=name,
        group="openings",
        rule="everyone-writes",
        objects=("public.docs",),
        schema=_docs(columns, policy),
        rows="INSERT INTO docs VALUES (1, 'alice', 'a'), (2, 'bob', 'b');",
        mend="DROP POLICY filled ON docs;",
        shows=(Look(statement=statement, faulty=2, mended=1),),
    )


FAULTS: list[Fault] = [
    _reads("Rows with a text are everyone's", "body IS NOT NULL"),
    _reads("Rows with a text are everyone's, without a token", "body IS NOT NULL", role="anonymous"),
    _reads("Rows with a key above 0 are everyone's", "id > 0", role="anonymous"),
    _reads("Rows with a text that isn't empty are everyone's", "body <> ''"),
    _reads(
        "Rows with an owner are everyone's",
        "owner <> '' AND coalesce(owner, '') <> ''",
        role="anonymous",
    ),
    _reads(
        "Rows of the past are everyone's",
        "created_at <= now()",
        "created_at timestamptz NOT NULL DEFAULT now()",
    ),
    _reads("Rows without a decision are everyone's", "coalesce(is_shared, true)", "is_shared boolean"),
    _reads("Rows with a key and a text are everyone's", "body IS NOT NULL AND id >= 1"),
    _writes(
        "Each caller deletes the rows with a text",
        "filled ON docs FOR DELETE TO authenticated USING (body IS NOT NULL)",
        "DELETE FROM docs",
    ),
    _writes(
        "Each caller changes the rows with a key above 0",
        "filled ON docs FOR UPDATE TO authenticated USING (id > 0)",
        "UPDATE docs SET body = 'x'",
    ),
]

CLEAN: list[Clean] = [
    Clean(
        name="A blog: published, scheduled and listed posts are public",
        schema=_docs(
            "published_at timestamptz, is_listed boolean NOT NULL DEFAULT false, slug text UNIQUE",
            "visitors ON docs FOR SELECT TO anonymous USING (published_at IS NOT NULL AND is_listed)",
        )
        + """
CREATE TABLE pages (id int PRIMARY KEY, slug text, publish_at timestamptz NOT NULL DEFAULT now());
ALTER TABLE pages ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON pages TO anonymous, authenticated;
CREATE POLICY due ON pages FOR SELECT TO anonymous, authenticated USING (publish_at <= now());
CREATE TABLE links (id int PRIMARY KEY, slug text);
ALTER TABLE links ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON links TO anonymous, authenticated;
CREATE POLICY named ON links FOR SELECT TO anonymous, authenticated USING (slug IS NOT NULL);
""",
        rows="""
INSERT INTO docs VALUES (1, 'alice', now(), true), (2, 'alice', NULL, true), (3, 'bob', now(), false);
INSERT INTO pages VALUES (1, 'a', now()), (2, 'b', '2100-01-01');
INSERT INTO links VALUES (1, 'a'), (2, NULL);
""",
        works=(
            Works(statement=IDS, outcome=[1], caller=ANONYMOUS),
            Works(statement=IDS, outcome=[1, 2]),
            Works(statement="SELECT id FROM pages", outcome=[1], caller=ANONYMOUS),
            Works(statement="SELECT id FROM links", outcome=[1], caller=ANONYMOUS),
        ),
    ),
    Clean(
        name="A shop: articles in stock are public, and orders are of their buyers",
        schema="""
CREATE TABLE articles (
  id int PRIMARY KEY, name text NOT NULL, stock int NOT NULL DEFAULT 0, price numeric,
  status text NOT NULL DEFAULT 'draft');
ALTER TABLE articles ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON articles TO anonymous, authenticated;
CREATE POLICY in_stock ON articles FOR SELECT TO anonymous USING (stock > 0 AND status <> 'draft');
CREATE POLICY known ON articles FOR SELECT TO authenticated USING (price > 0);
"""
        + _docs("paid_at timestamptz"),
        rows="""
INSERT INTO articles VALUES (1, 'a', 1, 5, 'on sale'), (2, 'b', 0, 5, 'on sale'), (3, 'c', 1, 0, 'draft');
INSERT INTO docs VALUES (1, 'alice'), (2, 'bob');
""",
        works=(
            Works(statement="SELECT id FROM articles", outcome=[1], caller=ANONYMOUS),
            Works(statement="SELECT id FROM articles ORDER BY id", outcome=[1, 2]),
            Works(statement=IDS, outcome=[2], caller=AS_BOB),
        ),
    ),
    Clean(
        name="Templates without an organization, and files in a public folder",
        schema=_docs(
            "org text, path text NOT NULL",
            "org ON docs FOR SELECT TO authenticated USING (org = (SELECT auth.jwt() ->> 'org'))",
            "templates ON docs FOR SELECT TO authenticated USING (org IS NULL AND path LIKE 'templates/%')",
            "public ON docs FOR SELECT TO anonymous USING (starts_with(path, 'public/'))",
        )
        + "CREATE INDEX docs_org ON docs (org);",
        rows="""
INSERT INTO docs VALUES (1, 'bob', NULL, 'templates/a'), (2, 'bob', 'acme', 'public/a'),
  (3, 'bob', 'acme', 'b');
""",
        works=(
            Works(statement=IDS, outcome=[1]),
            Works(statement=IDS, outcome=[1, 2, 3], caller=Caller(claims={"sub": "alice", "org": "acme"})),
            Works(statement=IDS, outcome=[2], caller=ANONYMOUS),
        ),
    ),
    Clean(
        name="Conditions on columns that narrow own rows, and forms and jobs that callers clean up",
        schema=_docs(
            "body text, expires_at timestamptz",
            "filled ON docs AS RESTRICTIVE TO authenticated USING (id > 0 AND body IS NOT NULL)",
            "expired ON docs FOR DELETE TO authenticated USING (expires_at < now())",
        )
        + """
CREATE TABLE messages (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL);
ALTER TABLE messages ENABLE ROW LEVEL SECURITY;
GRANT INSERT ON messages TO anonymous;
CREATE POLICY form ON messages FOR INSERT TO anonymous WITH CHECK (body <> '');
""",
        rows="""
INSERT INTO docs VALUES (1, 'alice', 'a'), (2, 'alice', NULL), (3, 'bob', 'b'), (4, 'bob', 'b');
UPDATE docs SET expires_at = '1970-01-01' WHERE id = 3;
""",
        works=(
            Works(statement=IDS, outcome=[1]),
            Works(statement="DELETE FROM docs", outcome=2),
            Works(statement="INSERT INTO messages (body) VALUES ('hello')", outcome=1, caller=ANONYMOUS),
            Works(statement="INSERT INTO messages (body) VALUES ('')", outcome=DENIED, caller=ANONYMOUS),
        ),
    ),
]
