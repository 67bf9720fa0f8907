"""Generated rows satisfy types, keys and constraints."""

from __future__ import annotations

from sqlalchemy import Engine, text

from sqla_rls.analyze.plans.rows import Rows
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from tests.analyze.lint.examples import run

SETUP = """
CREATE TYPE state AS ENUM ('draft', 'live');
CREATE DOMAIN email AS text CHECK (VALUE LIKE '%@%');
CREATE TABLE users (id uuid PRIMARY KEY, email email NOT NULL UNIQUE);
CREATE TABLE orgs (id int PRIMARY KEY, "Näme: 100%" varchar(20) NOT NULL UNIQUE);
CREATE TABLE members (
  org_id int REFERENCES orgs, user_id uuid REFERENCES users, role text CHECK (role IN ('admin', 'member')),
  PRIMARY KEY (org_id, user_id));
CREATE TABLE projects (
  org_id int REFERENCES orgs, id int GENERATED ALWAYS AS IDENTITY, state state NOT NULL, tags text[],
  meta jsonb, starts date NOT NULL, ends date NOT NULL, price numeric(10, 2) CHECK (price > 0),
  parent_id int, code char(6) NOT NULL, twice int GENERATED ALWAYS AS (id * 2) STORED,
  CHECK (starts < ends), PRIMARY KEY (org_id, id), FOREIGN KEY (org_id, parent_id) REFERENCES projects);
CREATE TABLE tasks (
  id serial PRIMARY KEY, org_id int NOT NULL, project_id int NOT NULL,
  FOREIGN KEY (org_id, project_id) REFERENCES projects (org_id, id));
CREATE TABLE events (id int, at timestamptz NOT NULL, user_id text) PARTITION BY RANGE (at);
CREATE TABLE events_2025 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON members USING (user_id = auth.uid() AND role = 'admin');
ALTER TABLE events ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON events USING (user_id = auth.user_id() AND id = (auth.jwt() -> 'app' ->> 'id')::int);
"""
SIZE = 400
ORPHANS = """
SELECT count(*) FROM tasks AS t
 WHERE NOT EXISTS (SELECT FROM projects AS p WHERE (p.org_id, p.id) = (t.org_id, t.project_id))
"""


def test_generated_rows_satisfy_types_keys_and_constraints(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(CreateAuthFunctions())
        run(connection, SETUP)
        schema = Schema.read(connection)
        rows = Rows.of(connection, schema, list(schema.relations), SIZE)
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        filled = rows.insert()

        assert filled.left_out == {}
        for name, count in filled.rows.items():
            assert connection.scalar(text(f"SELECT count(*) FROM {name}")) == count
        # Tables that others refer to have few rows.
        assert filled.rows["public.users"] == filled.rows["public.orgs"] == 20
        assert filled.rows["public.projects"] > SIZE / 4
        assert connection.scalar(text(ORPHANS)) == 0
        assert connection.scalar(text("SELECT reltuples FROM pg_class WHERE relname = 'tasks'")) > 0
        (with_values, with_lists) = rows.actors("postgres", {"role": "x"})
        assert with_values.claims is not None
        assert with_values.claims == {"role": "x", "sub": with_values.claims["sub"], "app": {"id": "7"}}
        assert with_lists.claims is not None
        assert with_lists.claims["app"] == {"id": ["7"]}
        owned = "SELECT count(*) FROM members WHERE CAST(user_id AS text) = :subject"
        assert connection.scalar(text(owned), {"subject": with_values.claims["sub"]}) > 0
