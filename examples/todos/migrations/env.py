"""Alembic's env.py for the application: the tables of the guide, and the shared lists."""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import NullPool

import todos.lists  # noqa: F401  (its tables)
from todos.models import Base

engine = create_engine(
    make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg"), poolclass=NullPool
)
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()
