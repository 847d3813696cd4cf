"""The workflow of GitHub Actions: valid by its schema, pinned, and the same two commands on every Python."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
SECONDS = 60


@pytest.fixture
def workflow() -> dict[str, Any]:
    """The workflow, read."""
    read: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text("utf-8"))
    return read


def checked(path: Path, schema: str) -> int:
    """Check a workflow by a schema that check-jsonschema brings; return the exit code."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    return subprocess.run(command, check=False, capture_output=True, timeout=SECONDS).returncode


@pytest.mark.parametrize("schema", ["vendor.github-workflows", "custom.github-workflows-require-timeout"])
def test_the_workflow_keeps_the_schema(schema: str) -> None:
    """The file is a workflow, and each of its jobs has a timeout."""
    assert 0 == checked(WORKFLOW, schema)


def test_a_fault_is_seen(tmp_path: Path) -> None:
    """A misspelt key does not pass the schema."""
    wrong = tmp_path / "ci.yml"
    wrong.write_text(WORKFLOW.read_text("utf-8").replace("runs-on:", "run-on:"), "utf-8")
    assert 1 == checked(wrong, "vendor.github-workflows")


def test_each_python_of_the_package_is_tried(workflow: dict[str, Any]) -> None:
    """The Pythons are those that pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    expected = [found[1] for name in project["classifiers"] if (found := re.search(r":: (3\.\d+)$", name))]
    assert expected == workflow["jobs"]["test"]["strategy"]["matrix"]["python"]


def test_the_commands_are_those_that_a_person_runs(workflow: dict[str, Any]) -> None:
    """The workflow runs `make check` and `make test`, and has no way of its own to test."""
    runs = [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    assert ["make check", "make test"] == [run for run in runs if not run.startswith("git config")]


def test_nothing_moves_under_the_workflow(workflow: dict[str, Any]) -> None:
    """Actions are pinned by commit, and the workflow may only read."""
    used = re.findall(r"uses: (.*)", WORKFLOW.read_text("utf-8"))
    assert used
    assert [] == [name for name in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", name)]
    assert {"contents": "read"} == workflow["permissions"]
    assert [] == [name for name, job in workflow["jobs"].items() if "permissions" in job]
