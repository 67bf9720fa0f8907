"""SQL over HTTP with a bearer token, in the protocol of Neon's serverless driver.

::

    endpoint = sql_endpoint(engine, provider.stack_auth("…"))
    app.mount("/neon", endpoint)  # at /neon/sql

    client = Client("https://api.example.com/neon/sql", auth_token=token)
    client.query("SELECT task FROM todos WHERE id = $1", 1).rows
"""

from sqla_rls.neon_http.client import AsyncClient, Client, Result
from sqla_rls.neon_http.endpoint import Limits, SqlEndpoint, sql_endpoint

__all__ = [
    "AsyncClient",
    "Client",
    "Limits",
    "Result",
    "SqlEndpoint",
    "sql_endpoint",
]
