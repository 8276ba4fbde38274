"""The tree is as ARCHITECTURE.md draws it, and what is built of it holds all of it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STOREYS = ("cli", "engine", "fixtures", "queries", "receiver", "server")
MAP = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MOST_MODULES = 12
# A file of a package that the wheel has no use for would be a surprise.
DATA = (".graphql", ".json", ".lark", ".oal", ".proto", ".pyi", ".sql", ".typed", ".yml")
PAGE = (".css", ".html", ".js", ".mjs", ".svg", ".toml", "/LICENSE")


def rooms() -> dict[str, set[str]]:
    """Return each package of the tree with its modules."""
    folders = [path.parent for one in STOREYS for path in (ROOT / one).rglob("__init__.py")]
    return {
        folder.relative_to(ROOT).as_posix() + "/": {
            path.stem for path in folder.glob("*.py") if path.stem != "__init__"
        }
        for folder in folders
    }


def table(title: str) -> Iterator[list[str]]:
    """Yield the rows of the first table under a title, without its head."""
    section = MAP.split(f"## {title}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    for row in rows[2:]:
        yield [cell.strip() for cell in row.strip("|").split("|")]


def test_the_map_shows_every_room_and_module() -> None:
    drawn = {room.strip("`"): set(modules.split(", ")) for room, modules, _ in table("The rooms")}
    assert drawn == rooms()


@pytest.mark.parametrize(
    "title", ["The way of a log", "Definitions", "Where the next line belongs"]
)
def test_places_on_the_map_are_there(title: str) -> None:
    named = [
        place for row in table(title) for place in re.findall(r"`([a-z_]+/[a-z_/.]+)`", row[1])
    ]
    assert named
    assert [place for place in named if not (ROOT / place).exists()] == []


def test_no_room_is_crowded() -> None:
    crowded = {
        room: len(modules)
        for room, modules in rooms().items()
        if room.split("/")[0] in {"engine", "receiver", "server", "queries"}
        and len(modules) > MOST_MODULES
    }
    assert crowded == {}


def doors() -> list[str]:
    return sorted(
        ".".join(path.parent.relative_to(ROOT).parts)
        for one in STOREYS
        for path in (ROOT / one).rglob("__init__.pyi")
    )


@pytest.mark.parametrize("door", doors())
def test_a_door_gives_what_it_lists(door: str) -> None:
    package = import_module(f"framewalk.{door}")
    names = package.__all__
    assert [name for name in names if not hasattr(package, name)] == []
    # Once somebody imported such a module, the door would give it in place of the name.
    (folder,) = package.__path__
    assert set(names) & {path.stem for path in Path(folder).iterdir()} == set()


def test_benchmarks_come_through_doors() -> None:
    open_rooms = {room.rstrip("/").replace("/", ".") for room in rooms()}
    open_rooms |= {f"engine.{name}" for name in rooms()["engine/"]} | {"receiver.send"}
    reached: set[str] = set()
    for path in (ROOT / "benchmarks").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("framewalk."):
                reached.add(str(node.module).removeprefix("framewalk."))
    inside = {
        one
        for one in reached - open_rooms
        if not one.startswith(("engine.stages.", "engine.wire."))
    }
    assert inside == set()


@pytest.mark.parametrize(
    "code",
    [
        """
import sys, framewalk.cli
sys.argv = ["framewalk", "--version"]
try: framewalk.cli.main()
except SystemExit: pass
""",
        """
from framewalk.server import serve
from framewalk.server.config import load_config
import framewalk.receiver.transports.grpcio, framewalk.receiver.transports.uvicorn.server
""",
    ],
    ids=["version", "receiving process"],
)
def test_who_computes_nothing_loads_no_frames(code: str) -> None:
    program = f"{code}\nimport sys; print({{'polars', 'duckdb'}} & sys.modules.keys())"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert process.stdout.splitlines()[-1] == b"set()", process.stdout


def packaged() -> set[str]:
    """Return the files that belong into a package, as its own paths."""
    files = subprocess.run(["git", "ls-files", *STOREYS], cwd=ROOT, capture_output=True, check=True)
    names = files.stdout.decode().splitlines()
    return {
        f"framewalk/{name}"
        for name in names
        if name.endswith((".py", *DATA, *PAGE)) and not name.startswith("fixtures/captures/")
    }


def test_wheel_and_sdist_hold_all_files(tmp_path: Path) -> None:
    copied = tmp_path / "source"
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, check=True)
    for name in names.stdout.decode().splitlines():
        if name.startswith((*(f"{one}/" for one in STOREYS), "pyproject", "README", "LICENSE")):
            target = copied / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    build = (
        "from setuptools.build_meta import build_sdist, build_wheel as w; w('d'); build_sdist('d')"
    )
    subprocess.run([sys.executable, "-c", build], cwd=copied, check=True, capture_output=True)
    (wheel,) = (copied / "d").glob("*.whl")
    (sdist,) = (copied / "d").glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        built = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert built == packaged()
    with tarfile.open(sdist) as source:
        packed = {"framewalk/" + name.partition("/")[2] for name in source.getnames()}
    assert packaged() - packed == set()


def test_packages_of_the_project_are_those_of_the_tree() -> None:
    named = PROJECT["tool"]["setuptools"]["packages"]
    assert named == sorted(f"framewalk.{room.rstrip('/').replace('/', '.')}" for room in rooms())


def test_the_image_is_made_of_every_storey() -> None:
    text = (ROOT / "docs" / "kubernetes" / "Dockerfile").read_text(encoding="utf-8")
    copied = dict(re.findall(r"^COPY ([a-z]+) ([a-z]+)$", text, re.MULTILINE))
    assert copied == {name: name for name in STOREYS}
