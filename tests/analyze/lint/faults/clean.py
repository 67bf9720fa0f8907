"""Schemas of applications without faults: no rule has a finding above info."""

from __future__ import annotations

from typing import Final

from tests.analyze.lint.faults.case import (
    ANONYMOUS,
    AS_BOB,
    DENIED,
    IDS,
    NOTHING,
    OWN,
    Caller,
    Clean,
    Works,
)

_TODOS: Final = Clean(
    name="Todos of one owner each, one policy for each command",
    schema="""
CREATE TABLE todos (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_id text NOT NULL DEFAULT auth.user_id(),
  task text NOT NULL,
  is_complete boolean NOT NULL DEFAULT false
);
CREATE INDEX ix_todos_user_id ON todos (user_id);
ALTER TABLE todos ENABLE ROW LEVEL SECURITY;
ALTER TABLE todos FORCE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE ON todos TO authenticated;
CREATE POLICY "crud-authenticated-policy-select" ON todos FOR SELECT TO authenticated
  USING ((SELECT auth.user_id()) = user_id);
CREATE POLICY "crud-authenticated-policy-insert" ON todos FOR INSERT TO authenticated
  WITH CHECK ((SELECT auth.user_id()) = user_id);
CREATE POLICY "crud-authenticated-policy-update" ON todos FOR UPDATE TO authenticated
  USING ((SELECT auth.user_id()) = user_id) WITH CHECK ((SELECT auth.user_id()) = user_id);
CREATE POLICY "crud-authenticated-policy-delete" ON todos FOR DELETE TO authenticated
  USING ((SELECT auth.user_id()) = user_id);
""",
    rows="INSERT INTO todos (user_id, task) VALUES ('alice', 'a'), ('bob', 'b');",
    works=(
        Works(statement="SELECT task FROM todos", outcome=["a"]),
        Works(statement="INSERT INTO todos (task) VALUES ('c') RETURNING task", outcome=["c"]),
        Works(statement="INSERT INTO todos (user_id, task) VALUES ('bob', 'c')", outcome=DENIED),
        Works(statement="UPDATE todos SET is_complete = true", outcome=1),
        Works(statement="DELETE FROM todos", outcome=1, caller=AS_BOB),
        Works(statement="SELECT task FROM todos", outcome=DENIED, caller=ANONYMOUS),
    ),
)

_TENANTS: Final = Clean(
    name="Tenants by a claim of the token",
    schema="""
CREATE TABLE tenants (id text PRIMARY KEY, name text NOT NULL);
CREATE TABLE projects (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id text NOT NULL
    REFERENCES tenants, name text NOT NULL,
  UNIQUE (tenant_id, id)
);
CREATE TABLE tasks (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id text NOT NULL, project_id int NOT NULL, title text,
  FOREIGN KEY (tenant_id, project_id) REFERENCES projects (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX tasks_project ON tasks (tenant_id, project_id);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE projects ENABLE ROW LEVEL SECURITY;
ALTER TABLE tasks ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON tenants TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON projects, tasks TO authenticated;
CREATE POLICY tenant ON tenants FOR SELECT TO authenticated USING (id = (SELECT auth.jwt() ->> 'tenant'));
CREATE POLICY tenant ON projects TO authenticated
  USING (tenant_id = (SELECT auth.jwt() ->> 'tenant'))
    WITH CHECK (tenant_id = (SELECT auth.jwt() ->> 'tenant'));
CREATE POLICY tenant ON tasks TO authenticated
  USING (tenant_id = (SELECT auth.jwt() ->> 'tenant'))
    WITH CHECK (tenant_id = (SELECT auth.jwt() ->> 'tenant'));
""",
    rows="""
INSERT INTO tenants VALUES ('acme', 'Acme'), ('other', 'Other');
INSERT INTO projects (tenant_id, name) VALUES ('acme', 'a'), ('other', 'b');
""",
    works=(
        Works(
            statement="SELECT name FROM projects",
            outcome=["a"],
            caller=Caller(claims={"sub": "alice", "tenant": "acme"}),
        ),
        Works(statement="SELECT name FROM projects", outcome=NOTHING),
        Works(
            statement="INSERT INTO projects (tenant_id, name) VALUES ('other', 'x')",
            outcome=DENIED,
            caller=Caller(claims={"sub": "alice", "tenant": "acme"}),
        ),
    ),
)

_TEAMS: Final = Clean(
    name="Teams whose members see each other, by a helper that runs as its owner",
    schema="""
RESET ROLE; CREATE SCHEMA private AUTHORIZATION app_owner; SET LOCAL ROLE app_owner;
GRANT USAGE ON SCHEMA private TO authenticated;
CREATE TABLE members (
  team_id int, user_id text, role text NOT NULL DEFAULT 'member', PRIMARY KEY (team_id, user_id)
);
CREATE INDEX members_user_id ON members (user_id, team_id);
CREATE TABLE docs (id int PRIMARY KEY, team_id int NOT NULL, body text);
CREATE INDEX docs_team_id ON docs (team_id);
CREATE FUNCTION private.my_teams(VARIADIC roles text[] DEFAULT '{member,admin}') RETURNS SETOF int
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
  AS 'SELECT m.team_id FROM public.members AS m
    WHERE m.user_id = (SELECT auth.user_id()) AND m.role = ANY (roles)';
REVOKE EXECUTE ON FUNCTION private.my_teams(text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION private.my_teams(text[]) TO authenticated;
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT, DELETE ON members TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO authenticated;
CREATE POLICY team ON members FOR SELECT TO authenticated
  USING (team_id = ANY (ARRAY(SELECT private.my_teams())));
CREATE POLICY remove ON members FOR DELETE TO authenticated
  USING (team_id = ANY (ARRAY(SELECT private.my_teams('admin'))));
CREATE POLICY team ON docs TO authenticated
  USING (team_id = ANY (ARRAY(SELECT private.my_teams())))
  WITH CHECK (team_id = ANY (ARRAY(SELECT private.my_teams())));
""",
    rows="""
INSERT INTO members VALUES (1, 'alice', 'admin'), (1, 'carol', 'member'), (2, 'bob', 'member');
INSERT INTO docs VALUES (1, 1, 'a'), (2, 2, 'b');
""",
    works=(
        Works(statement="SELECT user_id FROM members ORDER BY user_id", outcome=["alice", "carol"]),
        Works(statement="DELETE FROM members WHERE user_id = 'carol'", outcome=1),
        Works(statement="DELETE FROM members", outcome=0, caller=AS_BOB),
        Works(statement="INSERT INTO docs VALUES (3, 2, 'c')", outcome=DENIED),
        Works(statement=IDS, outcome=[2], caller=AS_BOB),
    ),
)

_SHARING: Final = Clean(
    name="Documents that their owners share",
    schema=f"""
RESET ROLE; CREATE SCHEMA private AUTHORIZATION app_owner; SET LOCAL ROLE app_owner;
GRANT USAGE ON SCHEMA private TO authenticated;
CREATE TABLE docs (id int PRIMARY KEY, owner text NOT NULL, body text);
CREATE INDEX docs_owner ON docs (owner);
CREATE TABLE shares (doc_id int REFERENCES docs ON DELETE CASCADE, user_id text,
  PRIMARY KEY (user_id, doc_id));
CREATE INDEX shares_doc_id ON shares (doc_id);
CREATE FUNCTION private.own_docs() RETURNS SETOF int LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
  AS 'SELECT d.id FROM public.docs AS d WHERE d.owner = (SELECT auth.user_id())';
CREATE FUNCTION private.shared_docs() RETURNS SETOF int LANGUAGE sql STABLE SECURITY DEFINER
  SET search_path = ''
  AS 'SELECT s.doc_id FROM public.shares AS s WHERE s.user_id = (SELECT auth.user_id())';
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA private FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA private TO authenticated;
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
ALTER TABLE shares ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO authenticated;
GRANT SELECT, INSERT, DELETE ON shares TO authenticated;
CREATE POLICY read ON docs FOR SELECT TO authenticated
  USING ({OWN} OR id = ANY (ARRAY(SELECT private.shared_docs())));
CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK ({OWN});
CREATE POLICY edit ON docs FOR UPDATE TO authenticated USING ({OWN}) WITH CHECK ({OWN});
CREATE POLICY away ON docs FOR DELETE TO authenticated USING ({OWN});
CREATE POLICY read ON shares FOR SELECT TO authenticated
  USING (user_id = (SELECT auth.user_id()) OR doc_id = ANY (ARRAY(SELECT private.own_docs())));
CREATE POLICY share ON shares FOR INSERT TO authenticated
  WITH CHECK (doc_id = ANY (ARRAY(SELECT private.own_docs())));
CREATE POLICY unshare ON shares FOR DELETE TO authenticated
  USING (doc_id = ANY (ARRAY(SELECT private.own_docs())));
""",
    rows="""
INSERT INTO docs VALUES (1, 'alice', 'a'), (2, 'bob', 'b'), (3, 'bob', 'c');
INSERT INTO shares VALUES (2, 'alice');
""",
    works=(
        Works(statement=IDS, outcome=[1, 2]),
        Works(statement="INSERT INTO shares VALUES (1, 'bob') RETURNING doc_id", outcome=[1]),
        Works(statement="INSERT INTO shares VALUES (3, 'alice')", outcome=DENIED),
        Works(statement="UPDATE docs SET body = 'x'", outcome=1),
    ),
)

_SOFT_DELETE: Final = Clean(
    name="Soft delete by a function that runs as its owner, for own rows",
    schema=f"""
CREATE TABLE docs (id int PRIMARY KEY, owner text NOT NULL, body text, deleted_at timestamptz);
CREATE INDEX docs_owner ON docs (owner) WHERE deleted_at IS NULL;
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT (id, owner, body), UPDATE (body) ON docs TO authenticated;
CREATE POLICY read ON docs FOR SELECT TO authenticated USING ({OWN} AND deleted_at IS NULL);
CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK ({OWN} AND deleted_at IS NULL);
CREATE POLICY edit ON docs FOR UPDATE TO authenticated
  USING ({OWN} AND deleted_at IS NULL) WITH CHECK ({OWN} AND deleted_at IS NULL);
CREATE FUNCTION delete_doc(doc_id int) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = ''
  AS 'UPDATE public.docs SET deleted_at = now() WHERE id = doc_id AND owner = (SELECT auth.user_id())';
REVOKE EXECUTE ON FUNCTION delete_doc(int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION delete_doc(int) TO authenticated;
""",
    rows="""
INSERT INTO docs VALUES (1, 'alice', 'a'), (2, 'bob', 'b');
INSERT INTO docs VALUES (3, 'alice', 'old', now());
""",
    works=(
        Works(statement=IDS, outcome=[1]),
        Works(statement=IDS, first=("SELECT delete_doc(1)",), outcome=NOTHING),
        Works(statement=IDS, first=("SELECT delete_doc(2)",), outcome=[1]),
        Works(statement="UPDATE docs SET body = 'x'", outcome=1),
    ),
)

_PUBLIC_ROWS: Final = Clean(
    name="Posts that everyone reads once they are published",
    schema="""
CREATE TABLE posts (
  id int PRIMARY KEY, author text NOT NULL, published boolean NOT NULL DEFAULT false, body text
);
CREATE INDEX posts_author ON posts (author);
CREATE INDEX posts_published ON posts (id) WHERE published;
ALTER TABLE posts ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON posts TO anonymous;
GRANT SELECT, INSERT, UPDATE, DELETE ON posts TO authenticated;
CREATE POLICY published ON posts FOR SELECT TO anonymous USING (published);
CREATE POLICY read ON posts FOR SELECT TO authenticated USING (published OR author = (SELECT auth.user_id()));
CREATE POLICY add ON posts FOR INSERT TO authenticated WITH CHECK (author = (SELECT auth.user_id()));
CREATE POLICY edit ON posts FOR UPDATE TO authenticated
  USING (author = (SELECT auth.user_id())) WITH CHECK (author = (SELECT auth.user_id()));
CREATE POLICY away ON posts FOR DELETE TO authenticated USING (author = (SELECT auth.user_id()));
""",
    rows="INSERT INTO posts VALUES (1, 'alice', true), (2, 'alice', false), (3, 'bob', false);",
    works=(
        Works(statement="SELECT id FROM posts", outcome=[1], caller=ANONYMOUS),
        Works(statement="SELECT id FROM posts ORDER BY id", outcome=[1, 2]),
        Works(statement="UPDATE posts SET published = true", outcome=2),
        Works(statement="DELETE FROM posts", outcome=1, caller=AS_BOB),
    ),
)

_ADMINS: Final = Clean(
    name="Administrators by a claim that users can't write",
    schema="""
CREATE TABLE orders (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer text NOT NULL, cents int NOT NULL
);
CREATE INDEX orders_customer ON orders (customer);
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE orders FORCE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, DELETE ON orders TO authenticated;
CREATE POLICY read ON orders FOR SELECT TO authenticated USING (
  customer = (SELECT auth.user_id()) OR (SELECT auth.jwt() -> 'app_metadata' ->> 'role') = 'admin');
CREATE POLICY add ON orders FOR INSERT TO authenticated WITH CHECK (customer = (SELECT auth.user_id()));
CREATE POLICY cancel ON orders FOR DELETE TO authenticated USING (
  (SELECT auth.jwt() -> 'app_metadata' ->> 'role') = 'admin');
""",
    rows="",
    works=(
        Works(
            statement="INSERT INTO orders (customer, cents) VALUES ('alice', 5) RETURNING cents", outcome=[5]
        ),
        Works(statement="INSERT INTO orders (customer, cents) VALUES ('bob', 5)", outcome=DENIED),
        Works(
            statement="SELECT count(*) FROM orders",
            outcome=[0],
            caller=Caller(claims={"sub": "root", "app_metadata": {"role": "admin"}}),
        ),
    ),
)

_CHAT: Final = Clean(
    name="Rooms, their members, and messages that only their authors change",
    schema="""
RESET ROLE; CREATE SCHEMA private AUTHORIZATION app_owner; SET LOCAL ROLE app_owner;
GRANT USAGE ON SCHEMA private TO authenticated;
CREATE TABLE rooms (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL);
CREATE TABLE room_members (room_id int REFERENCES rooms ON DELETE CASCADE, user_id text,
  PRIMARY KEY (user_id, room_id));
CREATE INDEX room_members_room ON room_members (room_id);
CREATE TABLE messages (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  room_id int NOT NULL REFERENCES rooms ON DELETE CASCADE,
  author text NOT NULL DEFAULT auth.user_id(), body text NOT NULL
);
CREATE INDEX messages_room ON messages (room_id);
CREATE INDEX messages_author ON messages (author);
CREATE FUNCTION private.my_rooms() RETURNS SETOF int LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
  AS 'SELECT m.room_id FROM public.room_members AS m WHERE m.user_id = (SELECT auth.user_id())';
REVOKE EXECUTE ON FUNCTION private.my_rooms() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION private.my_rooms() TO authenticated;
ALTER TABLE rooms ENABLE ROW LEVEL SECURITY;
ALTER TABLE room_members ENABLE ROW LEVEL SECURITY;
ALTER TABLE messages ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON rooms, room_members TO authenticated;
GRANT SELECT, INSERT, DELETE, UPDATE (body) ON messages TO authenticated;
CREATE POLICY mine ON rooms FOR SELECT TO authenticated USING (id = ANY (ARRAY(SELECT private.my_rooms())));
CREATE POLICY mine ON room_members FOR SELECT TO authenticated
  USING (room_id = ANY (ARRAY(SELECT private.my_rooms())));
CREATE POLICY mine ON messages FOR SELECT TO authenticated
  USING (room_id = ANY (ARRAY(SELECT private.my_rooms())));
CREATE POLICY send ON messages FOR INSERT TO authenticated
  WITH CHECK (author = (SELECT auth.user_id()) AND room_id = ANY (ARRAY(SELECT private.my_rooms())));
CREATE POLICY edit ON messages FOR UPDATE TO authenticated
  USING (author = (SELECT auth.user_id()) AND room_id = ANY (ARRAY(SELECT private.my_rooms())))
  WITH CHECK (author = (SELECT auth.user_id()) AND room_id = ANY (ARRAY(SELECT private.my_rooms())));
CREATE POLICY away ON messages FOR DELETE TO authenticated
  USING (author = (SELECT auth.user_id()) AND room_id = ANY (ARRAY(SELECT private.my_rooms())));
""",
    rows="""
INSERT INTO rooms (name) VALUES ('a'), ('b');
INSERT INTO room_members VALUES (1, 'alice'), (1, 'carol'), (2, 'bob');
INSERT INTO messages (room_id, author, body) VALUES (1, 'carol', 'hi'), (2, 'bob', 'hello');
""",
    works=(
        Works(statement="SELECT body FROM messages", outcome=["hi"]),
        Works(statement="INSERT INTO messages (room_id, body) VALUES (1, 'x') RETURNING body", outcome=["x"]),
        Works(statement="INSERT INTO messages (room_id, body) VALUES (2, 'x')", outcome=DENIED),
        Works(statement="UPDATE messages SET body = 'x'", outcome=0),
        Works(statement="SELECT user_id FROM room_members ORDER BY 1", outcome=["alice", "carol"]),
    ),
)

_RESTRICTIVE: Final = Clean(
    name="A restrictive policy keeps every role in its tenant",
    schema=f"""
CREATE TABLE docs (id int PRIMARY KEY, tenant text NOT NULL, owner text NOT NULL, body text);
CREATE INDEX docs_tenant ON docs (tenant, owner);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO authenticated;
CREATE POLICY tenant ON docs AS RESTRICTIVE
  USING (tenant = (SELECT auth.jwt() ->> 'tenant')) WITH CHECK (tenant = (SELECT auth.jwt() ->> 'tenant'));
CREATE POLICY own ON docs TO authenticated USING ({OWN}) WITH CHECK ({OWN});
""",
    rows="INSERT INTO docs VALUES (1, 'acme', 'alice'), (2, 'acme', 'bob'), (3, 'other', 'alice');",
    works=(
        Works(statement=IDS, outcome=[1], caller=Caller(claims={"sub": "alice", "tenant": "acme"})),
        Works(statement=IDS, outcome=NOTHING),
    ),
)

_APPEND_ONLY: Final = Clean(
    name="A journal that callers append to and read their part of",
    schema="""
CREATE TABLE journal (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, actor text NOT NULL DEFAULT auth.user_id(),
  action text NOT NULL, at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX journal_actor ON journal (actor, at);
ALTER TABLE journal ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT (action) ON journal TO authenticated;
CREATE POLICY read ON journal FOR SELECT TO authenticated USING (actor = (SELECT auth.user_id()));
CREATE POLICY append ON journal FOR INSERT TO authenticated WITH CHECK (actor = (SELECT auth.user_id()));
""",
    rows="INSERT INTO journal (actor, action) VALUES ('bob', 'x');",
    works=(
        Works(statement="INSERT INTO journal (action) VALUES ('a') RETURNING actor", outcome=["alice"]),
        Works(statement="INSERT INTO journal (actor, action) VALUES ('bob', 'a')", outcome=DENIED),
        Works(statement="UPDATE journal SET action = ''", outcome=DENIED),
        Works(statement="SELECT action FROM journal", outcome=NOTHING),
    ),
)

_PRIVATE: Final = Clean(
    name="Tables of the server's own, which callers hold no privilege on",
    schema="""
CREATE TABLE jobs (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payload jsonb NOT NULL);
CREATE TABLE api_keys (id int PRIMARY KEY, hash text NOT NULL UNIQUE);
CREATE TABLE settings (user_id text PRIMARY KEY DEFAULT auth.user_id(), theme text NOT NULL DEFAULT 'light');
ALTER TABLE settings ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE ON settings TO authenticated;
CREATE POLICY own ON settings TO authenticated
  USING (user_id = (SELECT auth.user_id())) WITH CHECK (user_id = (SELECT auth.user_id()));
""",
    rows="INSERT INTO jobs (payload) VALUES ('{}'); INSERT INTO settings VALUES ('bob');",
    works=(
        Works(statement="SELECT id FROM jobs", outcome=DENIED),
        Works(statement="INSERT INTO settings DEFAULT VALUES RETURNING user_id", outcome=["alice"]),
        Works(statement="UPDATE settings SET theme = 'dark' WHERE user_id = 'bob'", outcome=0),
    ),
)

CLEAN: Final = [
    _TODOS,
    _TENANTS,
    _TEAMS,
    _SHARING,
    _SOFT_DELETE,
    _PUBLIC_ROWS,
    _ADMINS,
    _CHAT,
    _RESTRICTIVE,
    _APPEND_ONLY,
    _PRIVATE,
]
