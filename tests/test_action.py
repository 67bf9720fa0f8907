"""The pre-commit hooks and the GitHub Action run commands that exist, and take no text as a command."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from sqla_rls.cli import main

pytestmark = pytest.mark.one_postgres

ROOT = Path(__file__).parents[1]
PROGRAMS = Path(sys.executable).parent


def action() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    return found


def scripts() -> dict[str, dict[str, Any]]:
    return {step["name"]: step for step in action()["runs"]["steps"] if "run" in step}


def run(name: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a step as GitHub does, with this environment's programs."""
    step = scripts()[name]
    assert set(environment) == set(step["env"])
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=folder,
        env={
            **os.environ,
            **environment,
            "PATH": f"{folder}{os.pathsep}{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            "RUNNER_TEMP": str(folder),
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_each_hook_runs_a_command_that_exists() -> None:
    subprocess.run(
        [PROGRAMS / "pre-commit", "validate-manifest", ROOT / ".pre-commit-hooks.yaml"], check=True
    )
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    for hook in hooks:
        program, command = shlex.split(hook["entry"])
        assert (PROGRAMS / program).exists()
        assert command in main.commands
        assert hook["id"] == f"{program}-{command}"
        assert not hook["pass_filenames"]


def test_each_action_is_the_one_of_the_workflows() -> None:
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    lines = (ROOT / "action.yml").read_text(encoding="utf-8").splitlines()
    used = [line.partition("uses:")[2].strip() for line in lines if "uses:" in line]
    assert used
    for one in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one)
        assert one in workflow


def test_inputs_reach_a_script_by_its_environment_only() -> None:
    for name, step in scripts().items():
        assert "${{" not in step["run"], name
        assert step["shell"] == "bash"
        subprocess.run(["bash", "-n", "-c", step["run"]], check=True)
    used = re.findall(r"inputs\.([\w-]+)", (ROOT / "action.yml").read_text(encoding="utf-8"))
    assert set(used) == set(action()["inputs"])


def test_each_option_of_the_check_exists() -> None:
    (command,) = [line for line in scripts()["Check"]["run"].splitlines() if "sqla-rls" in line.split()[:1]]
    assert command.split()[:2] == ["sqla-rls", "check"]
    options = {
        one
        for param in main.commands["check"].params
        for one in param.opts
        if isinstance(param, click.Option)
    }
    assert set(re.findall(r"--[a-z][\w-]*", scripts()["Check"]["run"])) <= options


def test_the_install_takes_the_extras_of_the_package(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >"$RUNNER_TEMP/arguments"\n', encoding="utf-8")
    fake.chmod(0o755)
    done = run("Install", tmp_path, INSTALL=".\n-r requirements.txt; touch attacked\n", ACTION=str(ROOT))
    assert done.returncode == 0, done.stderr
    arguments = (tmp_path / "arguments").read_text(encoding="utf-8").splitlines()
    assert arguments[:3] == ["-m", "pip", "install"]
    assert arguments[4:] == [f"{ROOT}[analyze,cli,embedded]", ".", "-r requirements.txt; touch attacked"]
    assert not (tmp_path / "attacked").exists()


@pytest.mark.exhaustive
def test_the_check_ends_with_the_code_of_the_command(tmp_path: Path) -> None:
    values = {"MODELS": "todos.models:Base\n", "ALEMBIC_CONFIGS": "", "ACCESS": "access.txt"}
    done = run("Check", tmp_path, TARGET="models", SKIP="lint\nalembic", **values)
    assert done.returncode == 2, done.stderr
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "    matrix  no answer  the matrix can't be compared: there is no file access.txt" in summary


@pytest.mark.exhaustive
def test_the_check_is_ok_with_a_committed_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "examples"))
    write = ["matrix", "models", "--models", "todos.models:Base", "--write", str(tmp_path / "access.txt")]
    subprocess.run([PROGRAMS / "sqla-rls", *write], check=True)
    values = {"MODELS": "todos.models:Base", "ALEMBIC_CONFIGS": "", "ACCESS": "access.txt"}
    done = run("Check", tmp_path, TARGET="models", SKIP="lint\nalembic", **values)
    assert done.returncode == 0, done.stdout + done.stderr
