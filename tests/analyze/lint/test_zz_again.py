from __future__ import annotations
import pytest
from tests.analyze.lint.examples import Examples, shown, unknown
from tests.analyze.lint.test_openings import *
CASES2={
"policy reads members without grant": """
CREATE TABLE members (org_id int, user_id text, PRIMARY KEY (org_id, user_id));
CREATE TABLE docs (id int PRIMARY KEY, org_id int NOT NULL, owner_id text NOT NULL);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON docs TO authenticated USING (owner_id = auth.user_id() OR EXISTS (SELECT FROM members m WHERE m.org_id=docs.org_id AND m.user_id=auth.user_id()));
CREATE VIEW v AS SELECT * FROM docs WHERE owner_id = auth.user_id() WITH CHECK OPTION;
GRANT SELECT, INSERT, UPDATE, DELETE ON v TO authenticated;
""",
"policy calls function without execute": """
CREATE TABLE docs (id int PRIMARY KEY, org_id int NOT NULL, owner_id text NOT NULL);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE FUNCTION mine(t text) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT t = auth.user_id()';
REVOKE ALL ON FUNCTION mine(text) FROM PUBLIC;
CREATE POLICY p ON docs TO authenticated USING (mine(owner_id));
CREATE VIEW v AS SELECT * FROM docs WHERE owner_id = auth.user_id() WITH CHECK OPTION;
GRANT SELECT, INSERT, UPDATE, DELETE ON v TO authenticated;
""",
"clean": """
CREATE TABLE docs (id int PRIMARY KEY, org_id int NOT NULL, owner_id text NOT NULL);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON docs TO authenticated USING (owner_id = auth.user_id());
CREATE VIEW v AS SELECT * FROM docs WHERE owner_id = auth.user_id() WITH CHECK OPTION;
GRANT SELECT, INSERT, UPDATE, DELETE ON v TO authenticated;
""",
"clean, self fk, serial": """
CREATE TABLE docs (id serial PRIMARY KEY, parent int REFERENCES docs, owner_id text NOT NULL DEFAULT auth.user_id());
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON docs TO authenticated USING (owner_id = auth.user_id());
CREATE VIEW v AS SELECT * FROM docs WHERE owner_id = auth.user_id() WITH CHECK OPTION;
GRANT SELECT, INSERT, UPDATE, DELETE ON v TO authenticated; GRANT USAGE ON docs_id_seq TO authenticated;
""",
"clean int": """
CREATE TABLE docs (id serial PRIMARY KEY, owner_id int NOT NULL);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON docs TO authenticated USING (owner_id = (SELECT substring(auth.user_id() FROM '^(0|-?[1-9][0-9]{0,18})$')::bigint));
CREATE VIEW v AS SELECT * FROM docs WHERE owner_id = (SELECT substring(auth.user_id() FROM '^(0|-?[1-9][0-9]{0,18})$')::bigint) WITH CHECK OPTION;
GRANT SELECT, INSERT, UPDATE, DELETE ON v TO authenticated; GRANT USAGE ON docs_id_seq TO authenticated;
""",
"invoker inner reads with row security on members": """
CREATE TABLE members (org_id int, user_id text, PRIMARY KEY (org_id, user_id));
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
CREATE POLICY m ON members TO authenticated USING (user_id = auth.user_id());
GRANT SELECT ON members TO authenticated;
CREATE TABLE docs (id int PRIMARY KEY, org_id int NOT NULL, owner_id text NOT NULL);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON docs TO authenticated USING (org_id IN (SELECT m.org_id FROM members m WHERE m.user_id=auth.user_id()));
CREATE VIEW v AS SELECT * FROM docs WHERE org_id IN (SELECT m.org_id FROM members m WHERE m.user_id=auth.user_id()) WITH CHECK OPTION;
GRANT SELECT, INSERT, UPDATE, DELETE ON v TO authenticated;
""",
"insert only policy, view w/o select": """
CREATE TABLE docs (id int PRIMARY KEY, org_id int NOT NULL, owner_id text NOT NULL);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON docs FOR INSERT TO authenticated WITH CHECK (owner_id = auth.user_id());
CREATE VIEW v AS SELECT * FROM docs WHERE owner_id = auth.user_id() WITH CHECK OPTION;
GRANT INSERT ON v TO authenticated;
""",
}
@pytest.mark.parametrize("n",CASES2)
def test_fp(examples, n):
    r=examples.look(CASES2[n], select=["view-without-invoker"])
    print("====",n)
    for f in r.findings: print(f.level,f.rule,f.text,*[e.text for e in f.evidence],sep="\n   ")
