"""Help for testing an app against a real Postgres and a real token issuer.

- ``sqla_rls.testing.postgres``: a Postgres for the time of a test run or a demo
- ``sqla_rls.testing.pgbouncer``: a PgBouncer in front of it
- ``sqla_rls.testing.issuer``: an identity provider on this machine
- ``sqla_rls.testing.proxy``: a network to it that counts round trips and takes its time
- ``sqla_rls.testing.pytest_plugin``: server and issuer as fixtures
"""
