"""An Alembic project whose env.py says nothing about this library, models for it, and what a database
looks like."""

from __future__ import annotations

import io
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    Connection,
    Engine,
    Identity,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    create_mock_engine,
    event,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.pool import NullPool, PoolResetState

from sqla_rls import auth, auth_uid, authenticated, crud_policy

_ENV = """
from alembic import context

attributes = context.config.attributes
options = {"target_metadata": attributes["metadata"], **attributes["options"]}
if context.is_offline_mode():
    options |= {"literal_binds": True, "dialect_opts": {"paramstyle": "named"}}
    context.configure(url=attributes["url"], **options)
    with context.begin_transaction():
        context.run_migrations()
else:
    engine = attributes["engine"]
    with engine.connect() as connection:
        context.configure(connection=connection, **options)
        with context.begin_transaction():
            context.run_migrations()
"""

_SCRIPT = """
from alembic import op
import sqlalchemy as sa
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}

def upgrade():
    ${upgrades if upgrades else "pass"}

def downgrade():
    ${downgrades if downgrades else "pass"}
"""

# Each line of a database's state that a migration may touch.
_STATE = """
SELECT 'policy', p::text FROM pg_catalog.pg_policies AS p
UNION ALL
SELECT 'table', concat_ws(' ', c.oid::regclass, c.relkind, c.relrowsecurity, c.relforcerowsecurity)
  FROM pg_catalog.pg_class AS c
 WHERE c.relnamespace::regnamespace::text !~ '^pg_|^information_schema$' AND c.relname !~ 'alembic_version'
UNION ALL
SELECT 'view', concat_ws(' ', c.oid::regclass, c.reloptions, pg_get_viewdef(c.oid),
                         ARRAY(SELECT format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute
                                WHERE attrelid = c.oid ORDER BY attnum))
  FROM pg_catalog.pg_class AS c
 WHERE c.relkind = 'v' AND c.relnamespace::regnamespace::text !~ '^pg_|^information_schema$'
UNION ALL
SELECT 'privilege', concat_ws(' ', c.oid::regclass, a.grantee::regrole, a.privilege_type,
                              CASE WHEN a.is_grantable THEN 'with grant option' END)
  FROM pg_catalog.pg_class AS c,
       aclexplode(coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char",
                                                c.relowner))) AS a
 WHERE c.relnamespace::regnamespace::text !~ '^pg_|^information_schema$' AND c.relname !~ 'alembic_version'
UNION ALL
SELECT 'column privilege',
       concat_ws(' ', c.attrelid::regclass, c.attname, a.grantee::regrole, a.privilege_type)
  FROM pg_catalog.pg_attribute AS c, aclexplode(c.attacl) AS a
 WHERE c.attrelid >= 16384 AND NOT c.attisdropped
UNION ALL
SELECT 'function privilege', concat_ws(' ', p.oid::regprocedure, a.grantee::regrole, a.privilege_type)
  FROM pg_catalog.pg_proc AS p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
 WHERE p.oid >= 16384
UNION ALL
SELECT 'schema', concat_ws(' ', n.nspname, a.grantee::regrole, a.privilege_type)
  FROM pg_catalog.pg_namespace AS n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS a
 WHERE n.nspname !~ '^pg_'
UNION ALL
SELECT 'database', concat_ws(' ', a.grantee::regrole, a.privilege_type, 'by', a.grantor::regrole)
  FROM pg_catalog.pg_database AS d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a
 WHERE d.datname = current_database()
UNION ALL
SELECT 'default privilege', concat_ws(' ', d.defaclnamespace::regnamespace, d.defaclobjtype, d.defaclacl)
  FROM pg_catalog.pg_default_acl AS d
UNION ALL
SELECT 'function', pg_get_functiondef(p.oid)
  FROM pg_catalog.pg_proc AS p
 WHERE p.prokind <> 'a' AND p.pronamespace::regnamespace::text !~ '^pg_|^information_schema$'
UNION ALL
SELECT 'comment', concat_ws(' ', pg_describe_object(d.classoid, d.objoid, d.objsubid), 'is', d.description)
  FROM pg_catalog.pg_description AS d
 WHERE d.objoid >= 16384
   AND d.classoid IN ('pg_policy'::regclass, 'pg_class'::regclass, 'pg_proc'::regclass)
UNION ALL
SELECT 'extension', e.extname::text FROM pg_catalog.pg_extension AS e
UNION ALL
-- One belongs to the functions that verify, in whatever database: who drops the last drops it.
SELECT 'role', r.rolname::text FROM pg_catalog.pg_roles AS r WHERE r.rolname <> 'sqla_rls_keyholder'
ORDER BY 1, 2
"""


# Some lists of varchar aren't read by Postgres as it spells them, so that neither a dump restores them
# to the letter.  Read once more they are.
_SETTLE = """
DO $$
DECLARE
  p record;
  v record;
BEGIN
  FOR p IN SELECT polname, polrelid::regclass AS relation,
                  pg_get_expr(polqual, polrelid) AS qual, pg_get_expr(polwithcheck, polrelid) AS with_check
             FROM pg_policy
  LOOP
    EXECUTE concat(format('ALTER POLICY %I ON %s', p.polname, p.relation),
                   ' USING (' || p.qual || ')', ' WITH CHECK (' || p.with_check || ')');
  END LOOP;
  FOR v IN SELECT oid::regclass AS relation, ' WITH (' || array_to_string(reloptions, ', ') || ')' AS options
             FROM pg_class WHERE relkind = 'v' AND oid >= 16384
  LOOP
    EXECUTE concat('CREATE OR REPLACE VIEW ', v.relation, v.options, ' AS ', pg_get_viewdef(v.relation));
  END LOOP;
END $$
"""


class _CompiledOnce(MutableMapping[tuple[Any, ...], Any]):
    """What engines compile, for all of them: each project has an engine of its own.

    The first item of a key is the engine's dialect.
    """

    def __init__(self) -> None:
        self._compiled: dict[object, Any] = {}

    def _key(self, key: tuple[Any, ...]) -> object:
        dialect, *rest = key
        return (dialect.driver, dialect.server_version_info, *rest)

    def __getitem__(self, key: tuple[Any, ...]) -> Any:
        return self._compiled[self._key(key)]

    def __setitem__(self, key: tuple[Any, ...], value: Any) -> None:
        self._compiled[self._key(key)] = value

    def __delitem__(self, key: tuple[Any, ...]) -> None:
        del self._compiled[self._key(key)]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._compiled)

    def __len__(self) -> int:
        return len(self._compiled)


class _OneConnection:
    """An engine that each command of a project uses, until another project has its turn.

    To connect, and to fill a new connection's caches, would be half of what Postgres has to do.
    """

    def __init__(self) -> None:
        self._of: object = None
        self._engine: Engine | None = None
        self._compiled = _CompiledOnce()

    def engine(self, url: URL, options: dict[str, Any]) -> Engine:
        of = (url, repr(options))
        if self._engine is None or of != self._of:
            if self._engine is not None:
                self._engine.dispose()
            engine = create_engine(url, pool_size=1, max_overflow=0, pool_reset_on_return=None, **options)
            event.listen(engine, "reset", _reset)
            self._of, self._engine = of, engine.execution_options(compiled_cache=self._compiled)
        return self._engine


def _reset(connection: Any, record: object, state: PoolResetState) -> None:
    # What a migration sets for its session ends with its command.  DISCARD ALL would take away the
    # statements that psycopg has prepared, too.
    if state.terminate_only:
        return
    connection.rollback()
    asked = connection.autocommit
    connection.autocommit = True
    for statement in ("RESET SESSION AUTHORIZATION", "RESET ROLE", "RESET ALL", "DISCARD TEMP"):
        connection.execute(statement)
    connection.autocommit = asked


_ONE_CONNECTION = _OneConnection()


class Project:
    """``alembic`` commands on a folder of their own."""

    def __init__(self, folder: Path, url: URL) -> None:
        self.folder, self.url = folder, url
        # verdicts/ has the tests of the comparison of access, which takes longer than everything else.
        self.options: dict[str, Any] = {"row_security_openings": "ignore"}
        self.engine_options: dict[str, Any] = {}
        (folder / "versions").mkdir(parents=True)
        (folder / "env.py").write_text(_ENV)
        (folder / "script.py.mako").write_text(_SCRIPT)
        self.engine: Engine = create_engine(url, poolclass=NullPool)

    def config(self, metadata: MetaData | list[MetaData], output: io.StringIO | None = None) -> Config:
        config = Config(output_buffer=output)
        config.set_main_option("script_location", str(self.folder))
        config.set_main_option("path_separator", "os")
        config.attributes.update(
            metadata=metadata,
            url=self.url,
            options=self.options,
            engine=_ONE_CONNECTION.engine(self.url, self.engine_options),
        )
        return config

    def revision(self, metadata: MetaData | list[MetaData]) -> str:
        """What autogenerate writes; its operations only."""
        before = set(self.folder.glob("versions/*.py"))
        command.revision(self.config(metadata), "change", autogenerate=True)
        (written,) = set(self.folder.glob("versions/*.py")) - before
        return written.read_text()

    def confirm(self) -> None:
        """Say that every migration opens what it says it opens."""
        for script in self.folder.glob("versions/*.py"):
            script.write_text(script.read_text().replace("confirmed=False", "confirmed=True"))

    def migrate(self, metadata: MetaData) -> str:
        """Autogenerate, upgrade, and see that nothing is left to do."""
        written = self.revision(metadata)
        self.upgrade()
        self.check(metadata)
        return written

    def upgrade(self, revision: str = "head") -> None:
        command.upgrade(self.config(MetaData()), revision)

    def downgrade(self, revision: str = "-1") -> None:
        command.downgrade(self.config(MetaData()), revision)

    def check(self, metadata: MetaData | list[MetaData]) -> None:
        """Raises alembic.util.AutogenerateDiffsDetected if the database differs from the models."""
        command.check(self.config(metadata))

    def script(self, direction: str, revision: str) -> str:
        """The SQL of ``--sql``."""
        output = io.StringIO()
        getattr(command, direction)(self.config(MetaData(), output), revision, sql=True)
        return output.getvalue()

    def state(self) -> list[tuple[str, str]]:
        with self.engine.connect() as connection:
            return state(connection)


def state(connection: Connection) -> list[tuple[str, str]]:
    """Everything in the catalog that a migration of row security may change."""
    return [(kind, line) for kind, line in connection.execute(text(_STATE))]


def settled_state(connection: Connection) -> list[tuple[str, str]]:
    """The same, when Postgres has read once more what it spells of policies."""
    savepoint = connection.begin_nested()
    connection.execute(text(_SETTLE))
    settled = state(connection)
    savepoint.rollback()
    return settled


def operations(script: str, direction: str = "upgrade") -> list[str]:
    """The names of the operations in upgrade(), or downgrade(), in their order."""
    body = script.split(f"def {direction}():")[1].split("\ndef ")[0]
    return [line.strip()[3:].split("(")[0] for line in body.splitlines() if line.strip().startswith("op.")]


def statements_of(metadata: MetaData) -> list[str]:
    """What create_all() shows without a database."""
    shown: list[str] = []
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
    engine = create_mock_engine(
        "postgresql+psycopg://", lambda statement, *_: shown.append(str(statement.compile(dialect=dialect)))
    )
    metadata.create_all(engine, checkfirst=False)
    return shown


def todos(*declarations: Any, **columns: Any) -> MetaData:
    metadata = MetaData()
    Table(
        "todos",
        metadata,
        Column("id", BigInteger, Identity(), primary_key=True),
        Column("user_id", Text, server_default=auth.user_id(), index=True),
        Column("task", Text),
        *[Column(name, type_) for name, type_ in columns.items()],
        *declarations,
    )
    return metadata


def own_todos(**columns: Any) -> MetaData:
    return todos(crud_policy(authenticated, read=auth_uid("user_id"), modify=auth_uid("user_id")), **columns)


def notes(*declarations: Any) -> MetaData:
    """A table with a serial column, and so with a sequence."""
    metadata = MetaData()
    Table(
        "notes",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("user_id", Text),
        *declarations,
    )
    return metadata


@contextmanager
def mended_drift(project: Project, drift: str) -> Iterator[None]:
    """Run *drift*.  The block migrates to what was there before; a downgrade brings the drift back."""
    before = project.state()
    execute(project, drift)
    drifted = project.state()
    assert drifted != before
    yield
    assert project.state() == before
    project.downgrade()
    assert project.state() == drifted


def execute(project: Project, *statements: str) -> None:
    with project.engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


@contextmanager
def counted() -> Iterator[list[str]]:
    """The statements that all engines execute."""
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield found
    event.remove(Engine, "before_cursor_execute", note)
