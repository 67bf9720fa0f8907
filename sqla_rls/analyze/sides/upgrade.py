"""The program that upgrades a scratch database: ``python -m sqla_rls.analyze.sides.upgrade``.

It reads its order as JSON from stdin.  A second database is never written: each connection of SQLAlchemy is
redirected to the scratch server, and one that reaches another server is refused.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from traceback import walk_tb
from typing import Any

from alembic.config import CommandLine, Config
from sqlalchemy import Engine, event, make_url
from sqlalchemy.exc import ArgumentError

from sqla_rls.analyze.sides.missing import of_another_program
from sqla_rls.exc import AnalysisError, ExposureNotConfirmed

#: The names that env.py may ask for by ``context.get_x_argument()``.
_X_ARGUMENTS = ("url", "db_url", "dburl", "database_url", "sqlalchemy.url")


def main() -> None:
    order = json.load(sys.stdin)
    url = make_url(order["url"])
    redirect(order["url"], order["cluster_name"])
    arguments = [word for path in order["configs"] for word in ("-c", path)]
    address = url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    arguments += [word for name in _X_ARGUMENTS for word in ("-x", f"{name}={address}")]
    try:
        _Alembic(address).main([*arguments, "--raiseerr", "upgrade", order["revision"]])
    except Exception as error:
        # The parent reads the text behind the last NUL.
        sys.stdout.write(f"\0{_reason(error)}")
        sys.exit(1)


def redirect(scratch: str, cluster_name: str) -> None:
    """Send each connection of this process to the scratch server."""
    url = make_url(scratch)

    def use_scratch(dialect: Any, record: Any, arguments: list[Any], parameters: dict[str, Any]) -> None:
        if dialect.name != "postgresql":
            raise AnalysisError(f"env.py connects to {dialect.name}. Use Postgres")
        found, options = dialect.create_connect_args(url.set(drivername=f"postgresql+{dialect.driver}"))
        arguments[:] = found
        parameters.clear()
        parameters.update(options)

    def require_scratch(connection: Any, record: Any) -> None:
        # create_engine(creator=…) makes connections of its own.
        cursor = connection.cursor()
        try:
            cursor.execute("SELECT pg_catalog.current_setting('cluster_name')")
            (found,) = cursor.fetchone()
        finally:
            cursor.close()
        connection.rollback()
        if found != cluster_name:
            raise AnalysisError(
                "env.py makes its own connection, to another server. Nothing was written. Let it use the URL "
                "in sqlalchemy.url or DATABASE_URL, without a creator"
            )

    event.listen(Engine, "do_connect", use_scratch)
    event.listen(Engine, "connect", require_scratch, insert=True)


class _Alembic(CommandLine):
    def __init__(self, url: str) -> None:
        super().__init__(prog="alembic")
        self._url = url

    def run_cmd(self, config: Config, options: Namespace) -> None:
        config.set_main_option("sqlalchemy.url", self._url.replace("%", "%%"))
        super().run_cmd(config, options)


def _reason(error: Exception) -> str:
    found = getattr(error, "orig", None) or error
    if isinstance(found, ExposureNotConfirmed):
        return (
            f"{found}. The call is in {_revision_of(found)}. To see the result first, set confirmed=True for "
            "this run: it upgrades a scratch database only. Set it to False again until you have reviewed "
            "the result"
        )
    if isinstance(found, AnalysisError | ArgumentError):
        return str(found)
    return f"{type(found).__name__}: {found}{of_another_program(found)}"


def _revision_of(error: Exception) -> str:
    """Return the name of the file of the revision that raised *error*."""
    # The error itself doesn't have the revision: operations don't know it.
    places = [frame.f_globals for frame, _ in walk_tb(error.__traceback__)]
    files = [one["__file__"] for one in places if "down_revision" in one and "__file__" in one]
    return Path(files[-1]).name if files else "the revision"


if __name__ == "__main__":
    main()
