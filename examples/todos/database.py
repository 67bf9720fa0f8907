"""How requests reach the database: by DATABASE_AUTHENTICATED_URL, as a login role that owns nothing.

DATABASE_URL, the owner's, is for migrations only: row security doesn't hold for the owner of a table.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

from sqlalchemy import create_engine, make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from sqla_rls import Verifier, enforce_row_security, provider

verifier = Verifier(
    provider.stack_auth(
        os.environ["STACK_PROJECT_ID"],
        base_url=os.environ.get("STACK_BASE_URL", "https://api.stack-auth.com"),
    )
)

url = make_url(os.environ["DATABASE_AUTHENTICATED_URL"])

engine = create_engine(url.set(drivername="postgresql+psycopg"))
SessionLocal = sessionmaker(engine)
enforce_row_security(SessionLocal, verifier=verifier)

# What follows the "?" of a hosted database's URL, such as sslmode=require, is libpq's: asyncpg refuses it.
async_driver = "asyncpg" if find_spec("asyncpg") and not url.query else "psycopg"
async_engine = create_async_engine(url.set(drivername=f"postgresql+{async_driver}"))
AsyncSessionLocal = async_sessionmaker(async_engine)
enforce_row_security(AsyncSessionLocal, verifier=verifier)
