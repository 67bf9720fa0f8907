"""Tools for tests of an app with a real Postgres and a real token issuer.

- ``sqla_rls.testing.postgres``: a Postgres for a test run or a demo
- ``sqla_rls.testing.pgbouncer``: a PgBouncer in front of it
- ``sqla_rls.testing.issuer``: an identity provider on this machine
- ``sqla_rls.testing.proxy``: a proxy that counts round trips, delays them, and breaks connections
- ``sqla_rls.testing.pytest_plugin``: server and issuer as fixtures
"""
