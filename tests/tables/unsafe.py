"""Why a role can't log in for callers, what Alice's SQL does as that role, and what cures it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Unsafe:
    """In SQL, ``{role}`` is the login role's name."""

    name: str
    #: What makes the role what it is, as a superuser.
    sql: tuple[str, ...]
    why: str
    #: What the error says to run.
    hint: str
    #: What Alice injects to read Bob's row, or to be rid of what protects it.
    attack: tuple[str, ...] = ()
    #: The PostgreSQL versions on which it opens anything.
    since: int = 0
    until: int = 100


_ROWS = "SELECT task FROM public.todos"
_OWNER = 'ALTER {what} OWNER TO "{{role}}{suffix}"'


def _owned(what: str, suffix: str = "") -> str:
    return _OWNER.format(what=what, suffix=suffix)


_DROPPED = ("DROP TABLE public.todos CASCADE", "SELECT 'bob''s' WHERE to_regclass('public.todos') IS NULL")
_MEMBERS = (
    "CREATE TABLE members (user_id text)",
    "GRANT SELECT ON members TO authenticated",
    """CREATE POLICY members ON todos TO authenticated
         USING (auth.user_id() IN (SELECT user_id FROM members))""",
)

_SAME = "FUNCTION same(text, text) RETURNS bool IMMUTABLE LANGUAGE sql"
_MORE = "CREATE POLICY more ON todos TO authenticated USING ((SELECT auth.user_id()) === user_id)"

UNSAFE = [
    Unsafe(
        name="superuser",
        sql=('ALTER ROLE "{role}" SUPERUSER',),
        why="it is a superuser",
        hint='ALTER ROLE "{role}" NOSUPERUSER',
        attack=(_ROWS,),
    ),
    Unsafe(
        name="BYPASSRLS",
        sql=('ALTER ROLE "{role}" BYPASSRLS', 'GRANT SELECT ON todos TO "{role}"'),
        why="it has BYPASSRLS",
        hint='ALTER ROLE "{role}" NOBYPASSRLS',
        attack=(_ROWS,),
    ),
    Unsafe(
        name="CREATEROLE",
        sql=(
            'ALTER ROLE "{role}" CREATEROLE',
            'CREATE ROLE "{role} owner"',
            _owned("TABLE todos", " owner"),
        ),
        why="it has CREATEROLE, and can grant itself any role",
        hint='ALTER ROLE "{role}" NOCREATEROLE',
        attack=('GRANT "{role} owner" TO "{role}"', 'SET ROLE "{role} owner"', _ROWS),
        until=15,
    ),
    Unsafe(
        name="ADMIN OPTION",
        sql=(
            'CREATE ROLE "{role} owner"',
            _owned("TABLE todos", " owner"),
            'GRANT "{role} owner" TO "{role}" WITH ADMIN TRUE, SET FALSE, INHERIT FALSE',
        ),
        why="it is a member of '{role} owner', which owns table public.todos",
        hint='REVOKE "{role} owner" FROM "{role}"',
        attack=('GRANT "{role} owner" TO "{role}" WITH SET TRUE', 'SET ROLE "{role} owner"', _ROWS),
        since=16,
    ),
    Unsafe(
        name="REPLICATION",
        sql=('ALTER ROLE "{role}" REPLICATION',),
        why="it has REPLICATION, and can read every change",
        hint='ALTER ROLE "{role}" NOREPLICATION',
    ),
    Unsafe(
        name="programs",
        sql=('GRANT pg_execute_server_program TO "{role}"', "CHECKPOINT"),
        why="it is a member of 'pg_execute_server_program', which can run programs as the server",
        hint='REVOKE pg_execute_server_program FROM "{role}"',
        attack=(
            "CREATE TEMP TABLE lines (line text)",
            "GRANT ALL ON lines TO PUBLIC",
            "SET ROLE pg_execute_server_program",
            """DO $$BEGIN EXECUTE format('COPY pg_temp.lines FROM PROGRAM %L',
                 'grep -ao "bob''s" ' || pg_relation_filepath('public.todos')); END$$""",
            "SELECT line FROM pg_temp.lines",
        ),
    ),
    Unsafe(
        name="files to write",
        sql=('GRANT pg_write_server_files TO "{role}"',),
        why="it is a member of 'pg_write_server_files', which can write files as the server",
        hint='REVOKE pg_write_server_files FROM "{role}"',
    ),
    Unsafe(
        name="files to read",
        sql=('GRANT pg_read_server_files TO "{role}"',),
        why="it is a member of 'pg_read_server_files', which can read files of the server",
        hint='REVOKE pg_read_server_files FROM "{role}"',
    ),
    Unsafe(
        name="all data to read",
        sql=('GRANT pg_read_all_data TO "{role}"', "ANALYZE todos"),
        why="it is a member of 'pg_read_all_data', which can read the signing key, and pg_statistic",
        hint='REVOKE pg_read_all_data FROM "{role}"',
        attack=(
            "SET ROLE pg_read_all_data",
            """SELECT unnest(stavalues1::text::text[]) FROM pg_catalog.pg_statistic
                WHERE starelid = 'public.todos'::regclass""",
        ),
    ),
    Unsafe(
        name="all data to write",
        sql=(
            'GRANT pg_write_all_data TO "{role}"',
            *_MEMBERS,
        ),
        why="it is a member of 'pg_write_all_data', which can write the signing key",
        hint='REVOKE pg_write_all_data FROM "{role}"',
        attack=(
            "SET ROLE pg_write_all_data",
            "INSERT INTO public.members VALUES ('alice')",
            "SET ROLE authenticated",
            _ROWS,
        ),
    ),
    Unsafe(
        name="owner",
        sql=(_owned("TABLE todos"),),
        why="it owns table public.todos, and can switch its row security off",
        hint="ALTER TABLE public.todos OWNER TO CURRENT_USER",
        attack=(_ROWS,),
    ),
    Unsafe(
        name="owner, forced",
        sql=(_owned("TABLE todos"), "ALTER TABLE todos FORCE ROW LEVEL SECURITY"),
        why="it owns table public.todos, and can switch its row security off",
        hint="ALTER TABLE public.todos OWNER TO CURRENT_USER",
        attack=("ALTER TABLE public.todos NO FORCE ROW LEVEL SECURITY", _ROWS),
    ),
    Unsafe(
        name="owner of a partition",
        sql=(
            "CREATE TABLE parted (task text) PARTITION BY LIST (task)",
            "ALTER TABLE parted ENABLE ROW LEVEL SECURITY",
            "CREATE TABLE part PARTITION OF parted DEFAULT",
            "INSERT INTO part VALUES ('bob''s')",
            _owned("TABLE part"),
        ),
        why="it owns table public.part, a partition of a protected one",
        hint="ALTER TABLE public.part OWNER TO CURRENT_USER",
        attack=("SELECT task FROM public.part",),
    ),
    Unsafe(
        name="owner of who is calling",
        sql=(_owned("FUNCTION auth.user_id()"), 'GRANT ALL ON SCHEMA auth TO "{role}"'),
        why="it owns function auth.user_id(), which returns the caller",
        hint="ALTER FUNCTION auth.user_id() OWNER TO CURRENT_USER",
        attack=(
            "CREATE OR REPLACE FUNCTION auth.user_id() RETURNS text STABLE RETURN 'bob'",
            "SET ROLE authenticated",
            _ROWS,
        ),
    ),
    Unsafe(
        name="owner of schema auth",
        sql=(_owned("SCHEMA auth"),),
        why="it owns schema auth, and can drop and replace its objects",
        hint="ALTER SCHEMA auth OWNER TO CURRENT_USER",
        attack=(
            "DROP FUNCTION auth.user_id() CASCADE",
            "SELECT 'bob''s' WHERE 'public.todos'::regclass NOT IN (SELECT polrelid FROM pg_policy)",
        ),
    ),
    Unsafe(
        name="owner of the schema",
        sql=(_owned("SCHEMA public"),),
        why="it owns schema public, and can drop and replace its objects",
        hint="ALTER SCHEMA public OWNER TO CURRENT_USER",
        attack=_DROPPED,
    ),
    Unsafe(
        name="owner of the database",
        sql=(
            "DO $$BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO \"{role}\"', current_database()); END$$",
        ),
        why="it is a member of 'pg_database_owner', which owns schema public, and can drop",
        hint="ALTER DATABASE {database} OWNER TO CURRENT_USER",
        attack=("SET ROLE pg_database_owner", *_DROPPED),
    ),
    Unsafe(
        name="owner of what a policy reads",
        sql=(
            *_MEMBERS,
            _owned("TABLE members"),
        ),
        why="it owns table public.members, which a policy depends on",
        hint="ALTER TABLE public.members OWNER TO CURRENT_USER",
        attack=("INSERT INTO public.members VALUES ('alice')", "SET ROLE authenticated", _ROWS),
    ),
    Unsafe(
        name="owner of a trigger's function",
        sql=(
            "CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "CREATE TRIGGER touched BEFORE UPDATE ON todos FOR EACH ROW EXECUTE FUNCTION touched()",
            _owned("FUNCTION touched()"),
        ),
        why="it owns function public.touched(), which runs with the rights of its callers",
        hint="ALTER FUNCTION public.touched() OWNER TO CURRENT_USER",
    ),
    Unsafe(
        name="owner of an operator's function",
        sql=(
            f"CREATE {_SAME} AS 'SELECT $1 = $2'",
            "CREATE OPERATOR === (LEFTARG = text, RIGHTARG = text, FUNCTION = same)",
            _MORE,
            _owned("FUNCTION same"),
            'GRANT CREATE ON SCHEMA public TO "{role}"',
        ),
        why="it owns function public.same(pg_catalog.text,pg_catalog.text), which a policy depends on",
        hint="ALTER FUNCTION public.same(pg_catalog.text,pg_catalog.text) OWNER TO CURRENT_USER",
        attack=(f"CREATE OR REPLACE {_SAME} AS 'SELECT true'", "SET ROLE authenticated", _ROWS),
    ),
    Unsafe(
        name="owner of a table below a view",
        sql=(
            "CREATE TABLE readers (owner text, reader text)",
            "CREATE VIEW reading AS SELECT * FROM readers",
            "CREATE MATERIALIZED VIEW kept AS SELECT * FROM reading",
            """CREATE FUNCTION shared() RETURNS SETOF text STABLE SECURITY DEFINER
                 BEGIN ATOMIC SELECT owner FROM reading WHERE reader = (SELECT auth.user_id()); END""",
            "CREATE POLICY kept ON todos TO anonymous USING (user_id IN (SELECT owner FROM kept))",
            "CREATE POLICY more ON todos TO authenticated USING (user_id IN (SELECT shared()))",
            _owned("TABLE readers"),
        ),
        why="it owns table public.readers, which a policy depends on",
        hint="ALTER TABLE public.readers OWNER TO CURRENT_USER",
        attack=("INSERT INTO public.readers VALUES ('bob', 'alice')", "SET ROLE authenticated", _ROWS),
    ),
    Unsafe(
        name="owner of a child of what a policy reads",
        sql=(
            *_MEMBERS,
            "CREATE TABLE guests () INHERITS (members)",
            _owned("TABLE guests"),
        ),
        why="it owns table public.guests, which a policy depends on",
        hint="ALTER TABLE public.guests OWNER TO CURRENT_USER",
        attack=("INSERT INTO public.guests VALUES ('alice')", "SET ROLE authenticated", _ROWS),
    ),
    Unsafe(
        name="owner of a child",
        sql=(
            "CREATE TABLE later () INHERITS (todos)",
            "INSERT INTO later VALUES (9, 'bob', 'bob''s')",
            _owned("TABLE later"),
        ),
        why="it owns table public.later, which a protected table uses",
        hint="ALTER TABLE public.later OWNER TO CURRENT_USER",
        attack=("SELECT task FROM public.later",),
    ),
    Unsafe(
        name="owner of a parent",
        sql=(
            "CREATE TABLE parent (task text)",
            "CREATE TABLE child () INHERITS (parent)",
            "ALTER TABLE child ENABLE ROW LEVEL SECURITY",
            "INSERT INTO child VALUES ('bob''s')",
            _owned("TABLE parent"),
        ),
        why="it owns table public.parent, which a protected table uses",
        hint="ALTER TABLE public.parent OWNER TO CURRENT_USER",
        attack=("SELECT task FROM public.parent",),
    ),
    Unsafe(
        name="owner of the schema of what a policy calls",
        sql=(
            "CREATE SCHEMA helpers",
            "CREATE FUNCTION helpers.me() RETURNS text STABLE RETURN auth.user_id()",
            "CREATE POLICY never ON todos AS RESTRICTIVE USING (user_id = helpers.me())",
            "CREATE POLICY more ON todos TO authenticated USING (true)",
            "GRANT USAGE ON SCHEMA helpers TO authenticated",
            _owned("SCHEMA helpers"),
        ),
        why="it owns schema helpers, which a policy depends on",
        hint="ALTER SCHEMA helpers OWNER TO CURRENT_USER",
        attack=("DROP FUNCTION helpers.me() CASCADE", "SET ROLE authenticated", _ROWS),
    ),
    Unsafe(
        name="owner of an operator class's function",
        sql=(
            "CREATE FUNCTION rank(text, text) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 0'",
            "CREATE FUNCTION below(text, text) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1 < $2'",
            "CREATE OPERATOR <<<< (LEFTARG = text, RIGHTARG = text, FUNCTION = below)",
            """CREATE OPERATOR CLASS ranked FOR TYPE text USING btree AS
                 OPERATOR 1 <<<<, FUNCTION 1 rank(text, text)""",
            "CREATE POLICY more ON todos TO authenticated USING (user_id <<<< (SELECT auth.user_id()))",
            _owned("FUNCTION rank(text, text)"),
        ),
        why="it owns function public.rank(pg_catalog.text,pg_catalog.text), which a policy depends on",
        hint="ALTER FUNCTION public.rank(pg_catalog.text,pg_catalog.text) OWNER TO CURRENT_USER",
    ),
    Unsafe(
        name="owner of an aggregate's function",
        sql=(
            "CREATE FUNCTION either(bool, bool) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1 OR $2'",
            "CREATE AGGREGATE whether(bool) (SFUNC = either, STYPE = bool)",
            "CREATE POLICY more ON todos TO authenticated USING ((SELECT whether(false)))",
            _owned("FUNCTION either"),
        ),
        why="it owns function public.either(boolean,boolean), which a policy depends on",
        hint="ALTER FUNCTION public.either(boolean,boolean) OWNER TO CURRENT_USER",
    ),
    Unsafe(
        name="owner of an index's function",
        sql=(
            "CREATE FUNCTION folded(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT lower($1)'",
            "CREATE INDEX ON todos (folded(task))",
            _owned("FUNCTION folded"),
        ),
        why="it owns function public.folded(pg_catalog.text), which runs with the rights of its callers",
        hint="ALTER FUNCTION public.folded(pg_catalog.text) OWNER TO CURRENT_USER",
    ),
    Unsafe(
        name="owner of a function of extended statistics",
        sql=(
            "CREATE FUNCTION folded(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT lower($1)'",
            "CREATE STATISTICS folding ON folded(task) FROM todos",
            _owned("FUNCTION folded"),
        ),
        why="it owns function public.folded(pg_catalog.text), which runs with the rights of its callers",
        hint="ALTER FUNCTION public.folded(pg_catalog.text) OWNER TO CURRENT_USER",
    ),
    Unsafe(
        name="owner of a function of a partition key",
        sql=(
            "CREATE FUNCTION folded(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT lower($1)'",
            "CREATE TABLE parted (task text) PARTITION BY LIST (folded(task))",
            _owned("FUNCTION folded"),
        ),
        why="it owns function public.folded(pg_catalog.text), which runs with the rights of its callers",
        hint="ALTER FUNCTION public.folded(pg_catalog.text) OWNER TO CURRENT_USER",
    ),
    Unsafe(
        name="owner of a cast's function",
        sql=(
            "CREATE TYPE level AS ENUM ('low')",
            "CREATE FUNCTION level(int) RETURNS level IMMUTABLE LANGUAGE sql AS $$SELECT 'low'::level$$",
            "CREATE CAST (int AS level) WITH FUNCTION level(int) AS IMPLICIT",
            _owned("FUNCTION level"),
        ),
        why="it owns function public.level(integer), which runs with the rights of its callers",
        hint="ALTER FUNCTION public.level(integer) OWNER TO CURRENT_USER",
    ),
    Unsafe(
        name="owner of a function that a constraint's function calls",
        sql=(
            "CREATE FUNCTION inner_one() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1'",
            "CREATE FUNCTION outer_one() RETURNS int STABLE RETURN inner_one()",
            "ALTER TABLE todos ADD CHECK (outer_one() = 1)",
            _owned("FUNCTION inner_one()"),
        ),
        why="it owns function public.inner_one(), which runs with the rights of its callers",
        hint="ALTER FUNCTION public.inner_one() OWNER TO CURRENT_USER",
    ),
    Unsafe(
        name="owner of a table that a constraint's function reads",
        sql=(
            "CREATE TABLE words (word text)",
            """CREATE FUNCTION allowed(text) RETURNS bool STABLE SECURITY DEFINER
                 BEGIN ATOMIC SELECT NOT EXISTS (SELECT FROM words WHERE word = $1); END""",
            "ALTER TABLE todos ADD CHECK (allowed(task))",
            _owned("TABLE words"),
        ),
        why="it owns table public.words, which a protected table uses",
        hint="ALTER TABLE public.words OWNER TO CURRENT_USER",
    ),
    Unsafe(
        name="owner of a column's domain",
        sql=(
            "CREATE DOMAIN note AS text",
            "CREATE DOMAIN short_note AS note",
            "ALTER TABLE todos ADD COLUMN notes short_note[]",
            _owned("DOMAIN note"),
        ),
        why="it owns type public.note, whose checks run with the rights of its users",
        hint="ALTER TYPE public.note OWNER TO CURRENT_USER",
    ),
    Unsafe(
        name="owner of a protected column's type",
        sql=(
            "CREATE TYPE pair AS (a text, b text)",
            "ALTER TABLE todos ADD COLUMN pairs pair[]",
            _owned("TYPE pair"),
        ),
        why="it owns type public.pair, which a protected table uses",
        hint="ALTER TYPE public.pair OWNER TO CURRENT_USER",
    ),
    Unsafe(
        name="owner of an event trigger's function",
        sql=(
            "CREATE FUNCTION noted() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
            "CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION noted()",
            _owned("FUNCTION noted()"),
        ),
        why="it owns function public.noted(), which an event trigger runs, for superusers, too",
        hint="ALTER FUNCTION public.noted() OWNER TO CURRENT_USER",
    ),
    Unsafe(
        name="member of an owner",
        sql=(
            'CREATE ROLE "{role} owner"',
            'GRANT "{role} owner" TO "{role}"',
            _owned("TABLE todos", " owner"),
        ),
        why="it is a member of '{role} owner', which owns table public.todos",
        hint='REVOKE "{role} owner" FROM "{role}"',
        attack=('SET ROLE "{role} owner"', _ROWS),
    ),
    Unsafe(
        name="member of a member",
        sql=(
            'CREATE ROLE "{role} boss" BYPASSRLS',
            'GRANT SELECT ON todos TO "{role} boss"',
            'CREATE ROLE "{role} team"',
            'GRANT "{role} boss" TO "{role} team"',
            'GRANT "{role} team" TO "{role}"',
        ),
        why="it is a member of '{role} boss', which has BYPASSRLS",
        hint='REVOKE "{role} boss" FROM "{role} team"',
        attack=('SET ROLE "{role} boss"', _ROWS),
    ),
    Unsafe(
        name="a caller's role that is a member of one above",
        sql=(
            'CREATE ROLE "{role} boss" BYPASSRLS',
            'GRANT SELECT ON todos TO "{role} boss"',
            'GRANT "{role} boss" TO authenticated',
        ),
        why="role 'authenticated': it is a member of '{role} boss', which has BYPASSRLS",
        hint='REVOKE "{role} boss" FROM authenticated',
        attack=('SET ROLE "{role} boss"', _ROWS),
    ),
]
