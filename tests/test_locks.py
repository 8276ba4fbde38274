"""What is locked is what the project asks for, whole, and with hashes."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# What reads bytes that senders, askers or dumps have made, and so must not change by itself.
HOSTILE = (
    *("pyarrow", "polars", "duckdb", "protobuf", "ptars", "pydantic", "pyyaml", "grpcio"),
    *("uvicorn", "zttp", "h11", "starlette", "httpx", "prometheus-client"),
)


def locked(name: str) -> dict[str, list[str]]:
    """Return the versions of each package in a lock; a package may have one per Python."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    pins: dict[str, list[str]] = {}
    # A requirement goes on in the lines that are indented.
    for entry in re.findall(r"^[a-z0-9].*(?:\n    .*)*", text, re.MULTILINE | re.IGNORECASE):
        pin, version = re.match(r"(\S+)==([^\s;]+)", entry).groups()
        assert entry.count("--hash=sha256:") >= 1, pin
        pins.setdefault(canonicalize_name(pin), []).append(version)
    return pins


def asked(group: str) -> list[Requirement]:
    """Return what a group of pyproject asks for, with the groups in it."""
    found: list[Requirement] = []
    for one in PROJECT["dependency-groups"][group]:
        if isinstance(one, dict):
            found += asked(one["include-group"])
        else:
            found.append(Requirement(one))
    return found


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [
        ("build", asked("build")),
        ("run", [Requirement(one) for one in PROJECT["project"]["dependencies"]]),
        ("dev", asked("dev")),
    ],
)
def test_a_lock_has_what_the_project_asks_for(lock: str, requirements: list[Requirement]) -> None:
    pins = locked(lock)
    assert requirements
    for one in requirements:
        versions = pins.get(canonicalize_name(one.name), [])
        assert versions, f"{one.name} is not locked: make lock"
        assert all(one.specifier.contains(version) for version in versions), f"{one}: make lock"


def test_the_tools_do_not_change_what_runs() -> None:
    dev = locked("dev")
    assert {name: dev.get(name) for name in locked("run")} == locked("run")


def test_what_takes_hostile_input_has_bounds_on_both_sides() -> None:
    requirements = [Requirement(one) for one in PROJECT["project"]["dependencies"]]
    operators = {one.name: {part.operator for part in one.specifier} for one in requirements}
    assert {name for name in HOSTILE if operators[name] != {">=", "<"}} == set()


def test_what_is_installed_here_is_what_is_locked() -> None:
    command = [sys.executable, "-m", "pip", "list", "--format", "freeze"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    installed = dict(line.split("==") for line in done.stdout.split() if "==" in line)
    pins = locked("dev")
    names = {canonicalize_name(name): Version(version) for name, version in installed.items()}
    others = names.keys() - pins.keys()
    assert others <= {"framewalk", "pip"}
    wrong = {
        name: one for name, one in names.items() if name in pins and str(one) not in pins[name]
    }
    assert wrong == {}


def test_the_image_installs_what_is_locked_and_nothing_else() -> None:
    text = (ROOT / "docs" / "kubernetes" / "Dockerfile").read_text(encoding="utf-8")
    installs = re.findall(r"pip (?:install|wheel) (.*)", text)
    assert len(installs) == 4
    assert all("--require-hashes" in one or "--no-deps" in one for one in installs)
