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
