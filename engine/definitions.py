"""Definitions as files: find them, parse and bind all of them, report every error at once."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from framewalk.engine.errors import InputError
from framewalk.engine.oal.bind import bind
from framewalk.engine.oal.diagnostics import DefinitionError, Severity
from framewalk.engine.oal.parser import parse_bytes
from framewalk.engine.oal.plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from importlib.resources.abc import Traversable

    from framewalk.engine.oal.plan import Plan


def load_plan(
    paths: Iterable[str | Path] = (), apdex_thresholds_ms: Mapping[str, int] | None = None
) -> Plan:
    """Read definitions and plan what they need.

    Args:
        paths: OAL files, or folders whose `*.oal` files are read; none means the shipped ones.
        apdex_thresholds_ms: Apdex threshold T per service name, 500 ms for all others.

    Raises:
        DefinitionError: definitions have errors; it lists all of all files.
        InputError: a file cannot be read.
    """
    sources = list(_files(paths)) or _shipped()
    bound = bind([parse_bytes(_read(source), str(source)) for source in sources])
    if any(found.severity is Severity.ERROR for found in bound.diagnostics):
        raise DefinitionError(bound.diagnostics)
    return make_plan(bound.metrics, apdex_thresholds_ms)


def _shipped() -> list[Traversable]:
    folder = files("framewalk.queries") / "oal"
    found = (entry for entry in folder.iterdir() if entry.name.endswith(".oal"))
    return sorted(found, key=lambda entry: entry.name)


def _files(paths: Iterable[str | Path]) -> Iterable[Path]:
    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        inside = sorted(path.glob("*.oal"))
        if not inside:
            raise InputError(path, "no *.oal file in this folder", "give a file or another folder")
        yield from inside


def _read(source: Traversable) -> bytes:
    try:
        return source.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(str(source), reason, "check the path and its permissions") from error
