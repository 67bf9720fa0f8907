"""A side as the command line names it, and the scratch database that is made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, MetaData, create_engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from sqla_rls.analyze.sides.dump import Dump, read_dump
from sqla_rls.analyze.sides.models import create_models, load_metadata
from sqla_rls.analyze.sides.restore import restore
from sqla_rls.analyze.sides.revision import upgrade
from sqla_rls.analyze.sides.scratch import Scratch, scratch_server
from sqla_rls.analyze.sides.unsigned import use_unsigned_claims
from sqla_rls.exc import AnalysisError

#: The owner of the objects of models and migrations, which name none.
OWNER: Final = "owner"

_KINDS: Final = (
    "Give a database URL (postgresql://…), models, rev:REVISION of Alembic, or the path of a snapshot file"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A scratch database.

    Attributes:
        connection: a connection of the scratch server's superuser.
        url: its URL.
        left_out: sentences about the parts of the side that the scratch database doesn't have.
        incomplete: tables and views that lack a part, by their names ``schema.table`` as Postgres quotes
            them: no verdict about them holds.
    """

    connection: Connection
    url: URL
    left_out: tuple[str, ...]
    incomplete: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a comparison; ``Side.parse()`` makes it.

    Attributes:
        name: the side in messages, without a password.
    """

    name: str
    _fill: Callable[[Scratch, str], None]
    _read: Callable[[], Dump] | None = None
    _owner: str | None = None

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        models: str | MetaData | Sequence[str | MetaData] | None = None,
        alembic_config: str | Sequence[str] | None = None,
        owner: str | None = None,
    ) -> Side:
        """Return the side that *text* names.

        Args:
            text: a database URL, ``models``, ``rev:REVISION`` of Alembic, or the path of a snapshot file.
            models: for ``models``: ``package.module:Base``, a MetaData, or several of them.
            alembic_config: for ``rev:``: the path of alembic.ini or pyproject.toml, or both; None for
                Alembic's defaults.
            owner: the role that owns the objects of models or a revision; None is ``owner``.

        Raises:
            AnalysisError: *text* names no side.
        """
        if text == "models":
            return cls._of_models(models, owner)
        if text.startswith("rev:"):
            revision = text.removeprefix("rev:")
            if not revision:
                raise AnalysisError("the side 'rev:' can't be built: it names no revision. Give rev:head")
            configs = [alembic_config] if isinstance(alembic_config, str) else list(alembic_config or ())
            return cls(
                name=text,
                _fill=lambda scratch, role: upgrade(revision, configs, scratch, role),
                _owner=owner,
            )
        if "://" in text:
            return cls._of_dump(*_database(text))
        path = Path(text)
        if path.is_file():
            return cls._of_dump(text, lambda: Dump.from_json(path.read_text(encoding="utf-8"), text))
        raise AnalysisError(f"the side {text!r} can't be built: there is no such file. {_KINDS}")

    @classmethod
    def _of_models(cls, models: str | MetaData | Sequence[str | MetaData] | None, owner: str | None) -> Side:
        given = [models] if isinstance(models, str | MetaData) else list(models or ())
        if not given:
            raise AnalysisError(
                "the side 'models' can't be built: it names no models. Add --models package.module:Base"
            )

        def fill(scratch: Scratch, role: str) -> None:
            found = [load_metadata(one) if isinstance(one, str) else one for one in given]
            create_models(found, scratch, role)

        return cls(name="models", _fill=fill, _owner=owner)

    @classmethod
    def _of_dump(cls, name: str, read: Callable[[], Dump]) -> Side:
        return cls(name=name, _fill=lambda scratch, role: restore(read(), scratch), _read=read)

    def dump(self) -> Dump:
        """Return the schema and the roles of the side, for a snapshot file.

        Raises:
            AnalysisError: the side can't be read or built.
        """
        if self._read is not None:
            return self._read()
        with self.build() as built:
            dump = read_dump(built.url)
            return replace(dump, left_out=[*built.left_out, *dump.left_out])

    @contextmanager
    def build(self) -> Iterator[Built]:
        """Build the side in a scratch server, which stops at the end of the block.

        Raises:
            AnalysisError: the side can't be read or built, or this machine has no Postgres binaries.
        """
        with scratch_server() as scratch:
            self._fill(scratch, self._owner or OWNER)
            engine = create_engine(scratch.url(), poolclass=NullPool)
            with engine.connect() as connection:
                scratch.left_out.extend(use_unsigned_claims(connection))
                connection.commit()
                yield Built(
                    connection=connection,
                    url=scratch.url(),
                    left_out=tuple(scratch.left_out),
                    incomplete=frozenset(scratch.incomplete),
                )


@contextmanager
def build_sides(before: Side, after: Side) -> Iterator[tuple[Built, Built]]:
    """Build both sides at the same time, each in a server of its own.

    Raises:
        AnalysisError: as of ``Side.build()``.
    """
    with ExitStack() as undo:
        with ThreadPoolExecutor(2) as threads:
            building = [before.build(), after.build()]
            found = [threads.submit(one.__enter__) for one in building]
        for side, future in zip(building, found, strict=True):
            if future.exception() is None:
                undo.push(side.__exit__)
        first, second = (future.result() for future in found)
        yield first, second


def _database(text: str) -> tuple[str, Callable[[], Dump]]:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # The text may hold a password.
        raise AnalysisError(f"the side can't be built: its URL is malformed. {_KINDS}") from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise AnalysisError(f"the side can't be built: its URL is of {url.drivername}. {_KINDS}")
    query = dict(url.query)
    if "ssl" in query:
        # asyncpg's name of libpq's sslmode.
        query["sslmode"] = query.pop("ssl")
    url = url.set(drivername="postgresql+psycopg", query=query)
    return url.set(drivername="postgresql").render_as_string(), lambda: read_dump(url)
