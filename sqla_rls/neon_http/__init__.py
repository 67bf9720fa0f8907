"""SQL over HTTP with a bearer token, in the protocol of Neon's serverless driver.

::

    endpoint = sql_endpoint(engine, provider.stack_auth("…"))
    app.mount("/neon", endpoint)  # at /neon/sql
"""

from sqla_rls.neon_http.endpoint import Limits, SqlEndpoint, sql_endpoint

__all__ = ["Limits", "SqlEndpoint", "sql_endpoint"]
