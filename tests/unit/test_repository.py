"""Rules for what is in the repository, whatever the code does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from server.version import VERSION
from tests.schedule import TOGETHER

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("bootstrap", "run", "dev")
_PINNED = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]*)(\[[a-z0-9,-]+\])?==(?P<version>[^\s;]+)( ; [^\\]+)? \\")
_HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def _pins(lock: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / f"{lock}.txt").read_text().splitlines()
    matches = [match for line in lines if (match := _PINNED.fullmatch(line))]
    return {match["name"]: match["version"] for match in matches}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _names(requirements: list[str]) -> set[str]:
    return {_normal(re.split(r"[\[<>=;\s]", requirement)[0]) for requirement in requirements}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_names_versions_markers_and_hashes_only(lock: str) -> None:
    lines = (ROOT / "requirements" / f"{lock}.txt").read_text().splitlines()
    assert lines
    assert [line for line in lines if not _PINNED.fullmatch(line) and not _HASH.fullmatch(line)] == []


def test_what_runs_in_production_is_what_was_tested() -> None:
    run, dev = _pins("run"), _pins("dev")
    assert run.items() <= dev.items()


def test_everything_that_the_project_names_is_locked() -> None:
    text = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = [name for group in text["project"]["optional-dependencies"].values() for name in group]
    groups = text["dependency-groups"]
    assert _names(text["project"]["dependencies"] + extras + groups["build"]) <= _pins("run").keys()
    assert _names(groups["test"] + groups["lint"]) <= _pins("dev").keys()
    assert _names(groups["bootstrap"]) == _pins("bootstrap").keys()


def test_the_javascript_lock_holds_no_address() -> None:
    lock = json.loads((ROOT / "tests" / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages
    assert [name for name, package in packages.items() if "resolved" in package or "integrity" not in package] == []


def test_no_file_names_the_host_of_a_package_registry() -> None:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a checkout")
    hosts = ["pypi" + ".org", "python" + "hosted.org", "npm" + "js.org", "yarn" + "pkg.com", "deb." + "debian.org"]
    options = [option for host in hosts for option in ("-e", host)]
    command = ["git", "-c", f"safe.directory={ROOT}", "grep", "--files-with-matches", "--fixed-strings", *options]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (1, ""), found.stderr


def test_every_folder_of_tests_is_run() -> None:
    folders = {f"tests/{found.relative_to(ROOT / 'tests').parts[0]}" for found in (ROOT / "tests").rglob("test_*.py")}
    assert sorted(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["testpaths"]
    ) == sorted(folders)


def test_hooks_run_the_locked_tools() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert set(re.findall(r"repo: (\S+)", text)) == {"local"}
    assert set(re.findall(r"language: (\S+)", text)) == {"system"}
    tools = set(re.findall(r"entry: (\S+)", text))
    assert tools <= {f".venv/bin/{tool}" for tool in ("ruff", "mypy", "lint-imports")}


def test_make_lists_every_command() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE) == phony[0].split()


def test_the_changelog_has_an_entry_for_this_version() -> None:
    assert f"## [{VERSION}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_code_says_the_version_that_the_project_says() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION


def test_what_is_scheduled_together_is_there() -> None:
    assert [file for files in TOGETHER.values() for file in files if not (ROOT / file).exists()] == []
