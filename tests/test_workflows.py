"""The workflows in ``.github/`` can't run here, so their commands, actions and permissions are checked."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.changelog import notes

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))

# Programs of GitHub's runners, and of setup-uv. All others come from a Makefile target.
ON_RUNNERS = {"gh", "make", "sudo", "uv"}
PERMISSIONS = {
    "publish": {"contents": "read", "id-token": "write", "attestations": "write"},
    "announce": {"contents": "write"},
}


def load(path: Path) -> Any:
    # YAML 1.1 reads the key `on` as true.
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in WORKFLOWS:
        yield from load(path)["jobs"].items()


def combinations(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the values that the matrix of *job* gives to its steps."""
    matrix = dict(job.get("strategy", {}).get("matrix", {}))
    included = matrix.pop("include", [])
    return [*(dict(zip(matrix, values, strict=True)) for values in product(*matrix.values())), *included]


def commands() -> list[tuple[str, list[str]]]:
    """Return each command of each job, with the values of the matrix in place."""
    found = []
    for name, job in jobs():
        for values in combinations(job):
            for step in job["steps"]:
                line = step.get("run", "")
                for key, value in values.items():
                    line = line.replace(f"${{{{ matrix.{key} }}}}", str(value))
                found += [(name, shlex.split(one)) for one in line.splitlines() if one]
    return found


def recipes() -> dict[str, list[str]]:
    """Return the targets of the Makefile, and the commands of each."""
    found: dict[str, list[str]] = {}
    target = ""
    for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines():
        if line.startswith("\t"):
            found[target].append(line.strip().lstrip("@"))
        elif (rule := re.match(r"([a-z0-9.-]+):(?!=)", line)) and not line.startswith("."):
            target = rule[1]
            found[target] = []
        elif line.startswith("$(VENV)"):
            target = "install"
            found.setdefault(target, [])
    return found


def uses() -> list[str]:
    """Return each action with its comment, as written."""
    lines = [line for path in WORKFLOWS for line in path.read_text(encoding="utf-8").splitlines()]
    return [line.partition("uses:")[2].strip() for line in lines if "uses:" in line]


def test_there_are_workflows_for_tests_lint_docs_and_releases() -> None:
    assert [path.stem for path in WORKFLOWS] == ["docs", "lint", "release", "test"]
    assert len(commands()) > 25


def test_each_target_that_a_workflow_makes_is_in_the_makefile() -> None:
    targets = recipes()
    for job, (program, *arguments) in commands():
        if program == "make":
            made = [argument for argument in arguments if "=" not in argument]
            assert made, job
            assert set(made) <= set(targets), job


def test_each_variable_that_a_workflow_sets_is_read_by_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for job, (program, *arguments) in commands():
        for name in [argument.partition("=")[0] for argument in arguments if "=" in argument]:
            if program == "make":
                assert re.search(rf"\$\({name}[:)]", makefile), (job, name)


def test_each_program_that_a_workflow_runs_is_on_the_runner() -> None:
    assert {program for _, (program, *_) in commands()} <= ON_RUNNERS


def test_each_program_and_module_in_the_makefile_exists() -> None:
    installed = {path.name for path in Path(sys.executable).parent.iterdir()} - {"uv"}
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    for target, lines in recipes().items():
        programs = set(installed)
        for line in lines:
            # A package has its programs, such as sphinx-build, after this line.
            for group in re.findall(r"--group (\S+)", line):
                packages = [re.split(r"[^\w-]", requirement)[0] for requirement in groups[group]]
                programs |= {f"{package}-build" for package in packages}
            words = line.split("#")[0].split()
            while words and re.fullmatch(r"[A-Z_]+=\S+", words[0]):
                words = words[1:]
            program = words[0]
            if program.startswith(("$(BIN)/", ".venv-2.0/bin/", ".venv-serve/bin/")):
                name = program.rpartition("/")[2]
                assert name == "uv" or name in programs, (target, name)
            elif program not in ("$(PYTHON)", "uv"):
                assert shutil.which(program), (target, program)
            for flag, module in pairwise(words):
                if flag == "-m" and "python" in program.lower() and module not in ("venv", "pip"):
                    assert (ROOT / f"{module.replace('.', '/')}.py").exists(), (target, module)
            for word in words[1:]:
                if word.endswith(".py"):
                    assert (ROOT / word).exists(), (target, word)


def test_each_command_and_option_of_uv_exists() -> None:
    checked = set()
    for target, lines in recipes().items():
        for line in lines:
            _, uv, rest = f" {line}".replace("$(BIN)/uv ", " uv ").partition(" uv ")
            words = rest.split()
            if not uv or not words:
                continue
            command = words[:2] if words[0] == "pip" else words[:1]
            options = {word for word in words if word.startswith("--")}
            shown = subprocess.run(
                [Path(sys.executable).with_name("uv"), *command, "--help"],
                capture_output=True,
                text=True,
                check=False,
            )
            assert shown.returncode == 0, (target, command)
            assert options <= set(re.findall(r"--[\w-]+", shown.stdout)), (target, command)
            checked.add(" ".join(command))
    assert checked == {"sync", "pip install", "build", "export", "run", "publish"}


def test_each_target_that_ci_makes_is_in_the_makefile() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    made = [line.split()[1:] for line in script.splitlines() if line.startswith("make ")]
    targets = {word for words in made for word in words if not word.startswith("-")}
    assert {"test", "test-rest", "lint", "types"} <= targets
    assert targets <= set(recipes())


def test_the_release_installs_what_it_signs_with_from_the_lock() -> None:
    lock = (ROOT / "uv.lock").read_text(encoding="utf-8")
    (line,) = [line for line in recipes()["publish"] if line.startswith("uv run")]
    words = line.split()
    group, program = words[words.index("--only-group") + 1], words[words.index("--only-group") + 2]
    assert "--frozen" in words
    assert re.search(rf"^{group} = \[\n    {{ name = \"{program}\" }},", lock, re.MULTILINE)


@pytest.mark.parametrize("action", sorted(set(uses())))
def test_each_action_is_pinned_to_a_commit(action: str) -> None:
    assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


def test_an_action_has_one_version() -> None:
    versions = set(uses())
    assert len({action.partition("@")[0] for action in versions}) == len(versions)


def test_the_permissions_are_the_least() -> None:
    for path in WORKFLOWS:
        top = load(path)["permissions"]
        assert top in ({}, {"contents": "read"}), path.name
        for name, job in load(path)["jobs"].items():
            permissions = job.get("permissions", top)
            assert permissions == PERMISSIONS.get(name, {"contents": "read"}), name


def test_a_checkout_leaves_no_credentials() -> None:
    for name, job in jobs():
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, name


def test_no_secret_is_read_and_no_text_of_others_becomes_a_command() -> None:
    for path in WORKFLOWS:
        text = path.read_text(encoding="utf-8")
        assert "secrets." not in text
        assert "pull_request_target" not in text
    for name, job in jobs():
        for step in job["steps"]:
            assert set(re.findall(r"\$\{\{ *(\w+)", step.get("run", ""))) <= {"matrix"}, name


def test_each_job_ends() -> None:
    assert [name for name, job in jobs() if "timeout-minutes" not in job] == []


def test_each_python_and_each_postgres_is_tested() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    supported = re.findall(r"Programming Language :: Python :: (3\.\d+)", project)
    tests = load(ROOT / ".github" / "workflows" / "test.yml")["jobs"]["test"]
    for target in ("test", "test-sqlalchemy-2.0"):
        found = [values for values in combinations(tests) if values["target"] == target]
        assert {values["python"] for values in found} == set(supported)
        assert {values["postgres"] for values in found} == {15, 16, 17, 18}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_is_whole(path: Path) -> None:
    form = load(path)
    if path.stem == "config":
        assert form["blank_issues_enabled"] is False
        return
    assert {"name", "description", "body"} <= set(form)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)


CHANGELOG = """\
# Changelog

## [Unreleased]

- Later.

## [0.2.0] - 2026-12-01

### Added

- A thing.

## [0.1.0]

- Undated.

## [0.0.1] - 2026-11-01
"""


def test_the_notes_of_a_release_are_its_section() -> None:
    assert notes(CHANGELOG, "v0.2.0") == "### Added\n\n- A thing."


@pytest.mark.parametrize(
    ("tag", "error"),
    [
        ("v0.3.0", r"no release of v0\.3\.0: CHANGELOG\.md has no section"),
        ("v0.1.0", r"no release of v0\.1\.0: the heading '\[0\.1\.0\]' has no date"),
        ("v0.0.1", r"no release of v0\.0\.1: its section of CHANGELOG\.md is empty"),
        ("Unreleased", "has no date"),
    ],
)
def test_no_release_without_a_dated_section(tag: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        notes(CHANGELOG, tag)
