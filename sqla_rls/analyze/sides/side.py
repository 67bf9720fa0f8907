"""A side as the command line names it, and the scratch database that is made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, MetaData, make_url
from sqlalchemy.exc import ArgumentError

from sqla_rls.analyze.sides.dump import Dump, name_of, read_dump
from sqla_rls.analyze.sides.models import create_models, load_metadata, module_file
from sqla_rls.analyze.sides.restore import restore
from sqla_rls.analyze.sides.revision import upgrade
from sqla_rls.analyze.sides.scratch import Owner, Scratch, scratch_server
from sqla_rls.analyze.sides.unsigned import use_unsigned_claims
from sqla_rls.analyze.sides.url import engine_of, with_psycopg
from sqla_rls.exc import AnalysisError

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
        incomplete: the tables and views that lack a part, by their names ``schema.table`` as Postgres quotes
            them, with the statements that fail.  No verdict about them holds.
    """

    connection: Connection
    url: URL
    left_out: tuple[str, ...]
    incomplete: Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a comparison; ``Side.parse()`` makes it.

    Attributes:
        name: the side in messages, without a password.
        path: the file that has the side, if there is one.
        owner: the role that owns the objects of models or a revision; None if the side doesn't say.
    """

    name: str
    _fill: Callable[[Scratch, Owner], None]
    _read: Callable[[], Dump] | None = None
    path: str | None = None
    owner: Owner | None = None
    #: Whether env.py connects to the scratch server: by a host and a port, in most projects.
    _listens: bool = False

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        models: str | MetaData | Sequence[str | MetaData] | None = None,
        alembic_config: str | Sequence[str] | None = None,
        owner: str | None = None,
        partial: bool = False,
    ) -> Side:
        """Return the side that *text* names.

        Args:
            text: a database URL, ``models``, ``rev:REVISION`` of Alembic, or the path of a snapshot file.
            models: for ``models``: ``package.module:Base``, a MetaData, or several of them.
            alembic_config: for ``rev:``: the path of alembic.ini or pyproject.toml, or both; None for
                Alembic's defaults.
            owner: the role that owns the objects of models or a revision.  None is ``owner``; in
                ``build_sides()`` it is the owner of most tables on the other side.
            partial: leave out the tables of a database that its role may not read, as incomplete ones; else
                they are an error.

        Raises:
            AnalysisError: *text* names no side.
        """
        given = None if owner is None else Owner(name=owner)
        if text == "models":
            return cls._of_models(models, given)
        if text.startswith("rev:"):
            return cls._of_revision(text, alembic_config, given)
        if "://" in text:
            url = database_url(text)
            hidden: dict[str, str] | None = {} if partial else None
            return cls._of_dump(name_of(url), lambda: read_dump(url, hidden), None, hidden)
        path = Path(text)
        if path.is_file():
            return cls._of_dump(text, lambda: Dump.from_json(path.read_text(encoding="utf-8"), text), text)
        if "@" in text or "=" in text:
            # A mistyped URL, or parameters of libpq, may hold a password.
            raise AnalysisError(f"the side can't be built: it is no file, and no URL with '://'. {_KINDS}")
        raise AnalysisError(f"the side {text!r} can't be built: there is no such file. {_KINDS}")

    @classmethod
    def _of_models(
        cls, models: str | MetaData | Sequence[str | MetaData] | None, owner: Owner | None
    ) -> Side:
        given = [models] if isinstance(models, str | MetaData) else list(models or ())
        if not given:
            raise AnalysisError(
                "the side 'models' can't be built: it names no models. Add --models package.module:Base"
            )

        def fill(scratch: Scratch, owner: Owner) -> None:
            found = [load_metadata(one) if isinstance(one, str) else one for one in given]
            create_models(found, scratch, owner)

        files = [path for one in given if isinstance(one, str) if (path := module_file(one)) is not None]
        return cls(name="models", _fill=fill, path=next(iter(files), None), owner=owner)

    @classmethod
    def _of_revision(cls, text: str, config: str | Sequence[str] | None, owner: Owner | None) -> Side:
        revision = text.removeprefix("rev:")
        if not revision:
            raise AnalysisError("the side 'rev:' can't be built: it names no revision. Give rev:head")
        configs = [config] if isinstance(config, str) else list(config or ())

        def fill(scratch: Scratch, owner: Owner) -> None:
            upgrade(revision, configs, scratch, owner)

        found = [one for one in configs or ("alembic.ini", "pyproject.toml") if Path(one).is_file()]
        return cls(name=text, _fill=fill, path=next(iter(found), None), owner=owner, _listens=True)

    @classmethod
    def _of_dump(
        cls,
        name: str,
        read: Callable[[], Dump],
        path: str | None,
        hidden: Mapping[str, str] | None = None,
    ) -> Side:
        read = cache(read)

        def fill(scratch: Scratch, owner: Owner) -> None:
            restore(read(), scratch)
            for table, reason in (hidden or {}).items():
                scratch.lacks(table, reason)
                scratch.left_out.append(f"{table}: {reason}.")

        return cls(name=name, _fill=fill, _read=read, path=path)

    @property
    def has_owner(self) -> bool:
        """Whether the side itself says who owns its objects: a database and a snapshot file do."""
        return self._read is not None

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
        with scratch_server(listens=self._listens) as scratch:
            self._fill(scratch, self.owner or Owner())
            engine = engine_of(scratch.url())
            with engine.connect() as connection:
                scratch.left_out.extend(use_unsigned_claims(connection))
                connection.commit()
                yield Built(
                    connection=connection,
                    url=scratch.url(),
                    left_out=tuple(scratch.left_out),
                    incomplete={name: frozenset(parts) for name, parts in scratch.incomplete.items()},
                )

    def _owned_as(self, other: Side) -> Side:
        """Return the side with the owner of the tables of *other*, if it names none itself."""
        if self._read is not None or self.owner is not None or other._read is None:
            return self
        return replace(self, owner=other._read().owner)


@contextmanager
def build_sides(before: Side, after: Side) -> Iterator[tuple[Built, Built]]:
    """Build both sides at the same time, each in a server of its own.

    Raises:
        AnalysisError: as of ``Side.build()``.
    """
    with ExitStack() as undo:
        building = [before._owned_as(after).build(), after._owned_as(before).build()]
        with ThreadPoolExecutor(2) as threads:
            found = [threads.submit(one.__enter__) for one in building]
        for side, future in zip(building, found, strict=True):
            if future.exception() is None:
                undo.push(side.__exit__)
        first, second = (future.result() for future in found)
        yield first, second


def database_url(text: str) -> URL:
    """Return the URL *text* with psycopg as its driver.

    Raises:
        AnalysisError: it is malformed, or of another kind of database.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # The text may hold a password.
        raise AnalysisError(f"the side can't be built: its URL is malformed. {_KINDS}") from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise AnalysisError(f"the side can't be built: its URL is of {url.drivername}. {_KINDS}")
    if "@" in (url.host or ""):
        # The host is the end of the password, which errors would show.
        raise AnalysisError(
            "the side can't be built: its URL has several @. Write %40 for an @ in the password"
        )
    return with_psycopg(url)
