"""A process with a tracing library: prints the todos that Alice, Bob and Alice see in turns."""

from __future__ import annotations

import os
import sys
from typing import Any

library, dsn = sys.argv[1:]
os.environ.update(DD_TRACE_ENABLED="true", DD_INSTRUMENTATION_TELEMETRY_ENABLED="false")
if library == "opentelemetry":
    from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor

    PsycopgInstrumentor().instrument()
elif library == "sentry":
    import sentry_sdk

    sentry_sdk.init(dsn=None, traces_sample_rate=1.0)
else:
    import ddtrace
    from ddtrace.trace import tracer

    tracer.enabled = False
    ddtrace.patch(psycopg=True, sqlalchemy=True)

from sqlalchemy import create_engine, text  # noqa: E402
from sqlalchemy.orm import sessionmaker  # noqa: E402

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify  # noqa: E402

seen: list[str] = []
for transport in ("with_begin", "pipeline", "statement"):
    engine = create_engine(dsn, pool_size=1, max_overflow=0)
    maker = sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(transport=transport))
    if library == "opentelemetry":
        from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor

        # As its documentation says for a connection that is open.
        with engine.connect() as connection:
            opened: Any = connection.connection.driver_connection
            PsycopgInstrumentor.instrument_connection(opened)
    seen = []
    for name in ("alice", "bob", "alice"):
        with maker() as session:
            identify(session, Caller(role="authenticated", subject=name))
            seen += session.scalars(text("SELECT task FROM todos")).all()
            session.execute(text("INSERT INTO todos (task) VALUES ('never')"))
            session.rollback()
            assert session.scalars(text("SELECT task FROM todos")).all() == seen[-1:]
    engine.dispose()
sys.stdout.write(" ".join(seen))
