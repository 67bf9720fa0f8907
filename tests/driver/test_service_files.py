"""Options of psycopg's connections that stand in a service file or in the environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, text
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import NullPool

from sqla_rls import Caller, enforce_row_security, identify


@pytest.mark.parametrize("by", ["argument", "PGSERVICE", "PGOPTIONS"])
def test_options_are_kept(
    url: URL, todos: None, alice: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    options = "-c statement_timeout=12345"
    lines = [f"host={url.host}", f"port={url.port}", "user=app", "password=app", f"dbname={url.database}"]
    if by == "PGOPTIONS":
        monkeypatch.setenv("PGOPTIONS", options)
    else:
        lines.append(f"options={options}")
    (tmp_path / "services").write_text("\n".join(["[mine]", *lines, ""]))
    monkeypatch.setenv("PGSERVICEFILE", f"{tmp_path / 'services'}")
    if by == "PGSERVICE":
        monkeypatch.setenv("PGSERVICE", "mine")
    engine = create_engine(
        "postgresql+psycopg://" if by == "PGSERVICE" else "postgresql+psycopg://?service=mine",
        poolclass=NullPool,
    )
    maker = sessionmaker(engine)
    enforce_row_security(maker)
    for _ in range(2):
        with maker() as session:
            identify(session, alice)
            assert session.scalar(text("SHOW statement_timeout")) == "12345ms"
            assert session.scalar(text("SELECT reset_val FROM pg_settings WHERE name = 'role'")) in (
                "none",
                None,
            )
