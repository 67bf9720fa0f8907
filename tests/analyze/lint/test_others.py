"""pgrls and splinter beside our rules."""

from __future__ import annotations

import json
import os
import shlex
import tomllib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool
from teams.models import Base as Teams

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.others import check_names, folded, others, pgrls_command
from sqla_rls.analyze.lint.pgrls_config import pgrls_config
from sqla_rls.analyze.lint.run import Report, lint
from sqla_rls.cli import main
from sqla_rls.exc import AnalysisError
from sqla_rls.server.postgres import Server
from tests.prose import ROOT
from tests.support.servers import cleared_server
from tests.support.suite import missing
from todos.models import Base as Todos

#: A file with the columns of splinter's, and a finding about each table.
SPLINTER = """
set local search_path = '';
select 'rls_enabled_no_policy' as name, 'Row security' as title, 'INFO' as level, 'EXTERNAL' as facing,
       array['SECURITY'] as categories, 'no policy' as description, 'Table has no policy' as detail,
       'https://example.com' as remediation,
       '{"schema": "public", "name": "Docs", "type": "table"}'::jsonb as metadata,
       'key' as cache_key
 where pg_catalog.has_table_privilege('anon', 'public."Docs"', 'SELECT');
"""
SCHEMA = """
CREATE TABLE "Docs" (id int PRIMARY KEY, owner text);
ALTER TABLE "Docs" ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON "Docs" FOR SELECT TO authenticated USING (owner = current_setting('app.user', true));
GRANT SELECT ON "Docs" TO authenticated, anonymous;
CREATE FUNCTION me() RETURNS text LANGUAGE sql STABLE AS $$ SELECT current_setting('app.user', true) $$;
"""


@pytest.fixture(scope="module")
def other_server() -> Iterator[Server]:
    with cleared_server() as found:
        yield found


@pytest.fixture
def connection(other_server: Server) -> Iterator[Connection]:
    name = other_server.create_database()
    with create_engine(other_server.url(name), poolclass=NullPool).connect() as found:
        yield found
    other_server.drop_database(name)


def opened(connection: Connection) -> Database:
    return Database(connection=connection, open_scratch=lambda: nullcontext(connection), is_scratch=True)


@pytest.fixture
def docs(connection: Connection) -> Database:
    for role in ("anonymous", "authenticated"):
        connection.exec_driver_sql(f"DROP ROLE IF EXISTS {role}")
        connection.exec_driver_sql(f"CREATE ROLE {role}")
    connection.exec_driver_sql(SCHEMA)
    return opened(connection)


def configuration(database: Database, report: Report) -> str:
    return pgrls_config(database, report.findings, [rule.name for rule in report.rules])


def finding(rule: str, object_: str, policy: str | None = None) -> Finding:
    return Finding(
        rule=rule,
        object=object_,
        kind="table",
        policy=policy,
        level="warning",
        text=rule,
        evidence=[Evidence(kind="catalog", text=rule)],
        remedy=Remedy(),
    )


def test_a_finding_about_the_same_fault_becomes_evidence() -> None:
    ours = [finding("no-subject", "public.docs", "own")]
    theirs = [
        finding("pgrls/SEC004", "public.docs", "own"),
        finding("pgrls/SEC004", "public.docs", "other"),
        finding("pgrls/SEC004", "public.notes", "own"),
        finding("pgrls/SEC007", "public.docs"),
    ]

    found = folded(ours, theirs)

    assert [one.rule for one in found] == ["no-subject", "pgrls/SEC004", "pgrls/SEC004", "pgrls/SEC007"]
    assert [one.text for one in found[0].evidence] == ["no-subject", "pgrls/SEC004"]


def test_two_programs_that_find_one_fault_have_one_finding() -> None:
    theirs = [
        finding("pgrls/SEC009", "public.docs"),
        finding("splinter/rls_enabled_no_policy", "public.docs"),
    ]

    (found,) = folded([], theirs)

    assert found.rule == "pgrls/SEC009"
    assert len(found.evidence) == 2


def test_a_program_that_is_unknown_is_an_error() -> None:
    with pytest.raises(AnalysisError, match="'eslint' can't run"):
        check_names(["pgrls", "eslint"])


def test_findings_of_pgrls_are_about_the_same_objects(
    docs: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    violations = [
        ("SEC004", "error", "public.Docs.own"),
        ("SEC014", "warning", "public.me"),
        ("SEC047", "warning", "public.Docs (docs_fkey)"),
        ("SEC016", "warning", "authenticated"),
        ("SEC044", "info", None),
    ]
    answer = {
        "violations": [
            {"rule_id": rule, "severity": level, "message": rule, "location": place}
            for rule, level, place in violations
        ]
    }
    command = tmp_path / "pgrls"
    command.write_text(
        f"#!/bin/sh\nprintf '%s' \"$DATABASE_URL\" > {tmp_path}/url\ncat <<'END'\n{json.dumps(answer)}\nEND\n"
    )
    command.chmod(0o755)
    monkeypatch.setattr("sqla_rls.analyze.lint.others.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    found = others(docs, ["pgrls"])

    assert [(one.rule, one.level, one.object, one.kind, one.policy) for one in found] == [
        ("pgrls/SEC004", "error", 'public."Docs"', "table", "own"),
        ("pgrls/SEC014", "warning", "public.me()", "function", None),
        ("pgrls/SEC047", "warning", 'public."Docs"', "table", None),
        ("pgrls/SEC016", "warning", "authenticated", "role", None),
        ("pgrls/SEC044", "info", docs.name, "database", None),
    ]
    assert (tmp_path / "url").read_text().startswith("postgresql://")


def test_a_folder_named_pgrls_isn_t_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pgrls").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    # The other folders may have the program.
    monkeypatch.setattr("sys.path", [str(tmp_path)])

    assert pgrls_command() is None


def test_a_program_that_is_missing_or_fails_is_unknown(
    docs: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqla_rls.analyze.lint.others.pgrls_command", lambda: None)
    assert others(docs, ["pgrls", "splinter"]) == []

    monkeypatch.setattr("sqla_rls.analyze.lint.others.pgrls_command", lambda: ["false"])
    broken = tmp_path / "splinter.sql"
    broken.write_text("SELECT 1 FROM nothing;")
    assert others(docs, ["pgrls", "splinter"], splinter=broken) == []

    assert [(one.object, one.reason.partition(".")[0]) for one in docs.unknown] == [
        ("pgrls", "it isn't installed"),
        ("splinter", "it isn't part of sqla-rls"),
        ("pgrls", "its exit status is 1"),
        ("splinter", 'relation "nothing" does not exist'),
    ]
    report = lint(docs, target="docs", select=["row-security-off"])
    assert [(one.rule, one.level, one.object) for one in report.findings] == [
        ("unknown", "error", "pgrls"),
        ("unknown", "error", "splinter"),
    ]
    with pytest.raises(AnalysisError, match="can't be read"):
        others(docs, ["splinter"], splinter=tmp_path / "none.sql")


def test_splinter_sees_the_anonymous_role_as_anon(docs: Database, tmp_path: Path) -> None:
    path = tmp_path / "splinter.sql"
    path.write_text(SPLINTER)

    (found,) = others(docs, ["splinter"], splinter=path)

    assert (found.rule, found.level, found.object) == (
        "splinter/rls_enabled_no_policy",
        "info",
        'public."Docs"',
    )
    assert docs.connection.exec_driver_sql("SELECT FROM pg_roles WHERE rolname = 'anon'").all() == []


@pytest.mark.exhaustive
def test_splinter_can_t_write(docs: Database, tmp_path: Path) -> None:
    path = tmp_path / "splinter.sql"
    path.write_text('DELETE FROM public."Docs"; SELECT 1;')

    assert others(docs, ["splinter"], splinter=path) == []
    assert [one.object for one in docs.unknown if "read-only transaction" in one.reason] == ["splinter"]


def test_the_exported_configuration_names_functions_columns_and_roles(docs: Database) -> None:
    found = tomllib.loads(configuration(docs, lint(docs, target="docs")))

    assert found["database"]["schemas"] == ["public"]
    rules = found["lint"]["rules"]
    assert rules["PERF001"]["auth_functions"] == ["current_setting", "public.me"]
    # These lists take the place of pgrls's own, which has PUBLIC for all rules but SEC039.
    assert rules["SEC004"]["anon_roles"] == rules["SEC042"]["anon_roles"] == ["PUBLIC", "anonymous"]
    assert rules["SEC039"]["anon_roles"] == ["anonymous"]
    assert rules["SEC047"]["low_trust_roles"] == ["PUBLIC", "anonymous"]
    assert rules["SEC049"]["grantees"] == ["PUBLIC", "anonymous", "authenticated"]
    assert rules["SEC002"]["allowlist"] == ["public.Docs"]


@pytest.mark.exhaustive
def test_our_declarations_are_clean_under_pgrls_with_that_configuration(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pgrls_command() is None:
        missing("pgrls", "pip install pgrls")
    for base in (Todos, Teams):
        base.metadata.create_all(connection)
    connection.commit()
    database = opened(connection)
    monkeypatch.chdir(tmp_path)
    report = lint(database, target="declarations", speed=True)
    (tmp_path / "pgrls.toml").write_text(configuration(database, report))

    found = folded(report.findings, others(opened(connection), ["pgrls"]))

    # An index that is missing is a finding of both.
    assert [one for one in found if one.rule.startswith("pgrls/")] == []


def test_export_writes_a_file_and_keeps_that_of_a_person(
    docs: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs.connection.commit()
    url = docs.connection.engine.url.render_as_string(hide_password=False)
    monkeypatch.chdir(tmp_path)
    options = ["lint", url, "--export", "pgrls", "--select", "row-security-off"]

    assert CliRunner().invoke(main, options).exit_code == 0
    assert CliRunner().invoke(main, options).exit_code == 0
    assert tomllib.loads((tmp_path / "pgrls.toml").read_text())["database"]
    (tmp_path / "pgrls.toml").write_text("[database]\n")
    refused = CliRunner().invoke(main, options)

    assert refused.exit_code == 2
    assert "sqla-rls didn't write it" in refused.output
    assert (tmp_path / "pgrls.toml").read_text() == "[database]\n"


@pytest.mark.exhaustive
def test_the_call_of_the_guide(docs: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (ROOT / "docs" / "guide" / "lint_others.md").read_text("utf-8")
    call = guide.split("```console\n$ sqla-rls ")[1].split("\n")[0]
    docs.connection.commit()
    (tmp_path / "splinter.sql").write_text(SPLINTER)
    monkeypatch.chdir(tmp_path)
    url = docs.connection.engine.url.render_as_string(hide_password=False)
    monkeypatch.setenv("DATABASE_URL", url)

    told = CliRunner().invoke(main, shlex.split(os.path.expandvars(call)))

    assert told.exit_code == 1, told.output
    assert "splinter/rls_enabled_no_policy" in told.output
    assert ("error unknown: pgrls" in told.output) == (pgrls_command() is None), told.output
