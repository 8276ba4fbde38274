"""Definitions as files: find them, parse and bind all of them, report every error at once."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from framewalk.engine.errors import InputError
from framewalk.engine.oal.binding import bind
from framewalk.engine.oal.diagnostics import DefinitionError, Severity
from framewalk.engine.oal.files.apdex import ApdexThresholds, read_apdex_thresholds
from framewalk.engine.oal.files.endpoints import read_endpoint_patterns
from framewalk.engine.oal.parser import parse_bytes
from framewalk.engine.oal.plan import make_plan
from framewalk.engine.oal.syntax import Definition
from framewalk.engine.paths import each_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.resources.abc import Traversable
    from pathlib import Path

    from framewalk.engine.oal.bound import Metric
    from framewalk.engine.oal.diagnostics import Diagnostic
    from framewalk.engine.oal.parser import Parsed
    from framewalk.engine.oal.plan import EndpointPatterns, Plan
    from framewalk.engine.paths import Paths


@dataclass(frozen=True, slots=True)
class Definitions:
    """What some files define; `metrics` are those without errors and not disabled."""

    files: tuple[Parsed, ...]
    metrics: tuple[Metric, ...]
    diagnostics: tuple[Diagnostic, ...]

    @property
    def errors(self) -> int:
        """Number of errors."""
        return sum(found.severity is Severity.ERROR for found in self.diagnostics)

    @property
    def warnings(self) -> int:
        """Number of warnings."""
        return len(self.diagnostics) - self.errors

    @property
    def definitions(self) -> int:
        """Number of definitions that could be read, wrong or not."""
        statements = (one for file in self.files for one in file.script.statements)
        return sum(isinstance(statement, Definition) for statement in statements)


def load_plan(
    paths: Paths = (),
    apdex: ApdexThresholds | None = None,
    endpoint_patterns: EndpointPatterns | None = None,
    *,
    skip_unknown_scopes: bool = False,
    on_warning: Callable[[Diagnostic], None] | None = None,
) -> Plan:
    """Read definitions and plan what they need.

    Args:
        paths: an OAL file, a folder whose `*.oal` files are read, or several of them; none means
            the shipped ones.
        apdex: the thresholds of apdex(), 500 ms if not given.
        endpoint_patterns: what folds the paths of endpoints; nothing does if not given.
        skip_unknown_scopes: leave definitions of other scopes out, and disables of what no file
            defines, with a warning.
        on_warning: is called with each warning.

    Raises:
        DefinitionError: definitions have errors; it lists all of all files.
        InputError: a file cannot be read.
    """
    read = read_definitions(paths, skip_unknown_scopes=skip_unknown_scopes)
    if read.errors:
        raise DefinitionError(read.diagnostics)
    if on_warning is not None:
        for diagnostic in read.diagnostics:
            on_warning(diagnostic)
    thresholds = apdex or ApdexThresholds()
    return make_plan(
        read.metrics, thresholds.per_service_ms, thresholds.default_ms, endpoint_patterns
    )


def load_plan_of_files(
    paths: Paths = (),
    apdex_path: Path | None = None,
    endpoint_patterns_path: Path | None = None,
    *,
    skip_unknown_scopes: bool = False,
    on_warning: Callable[[Diagnostic], None] | None = None,
) -> Plan:
    """Do as load_plan, with thresholds and patterns in files; raises what it does."""
    return load_plan(
        paths,
        read_apdex_thresholds(apdex_path) if apdex_path else None,
        read_endpoint_patterns(endpoint_patterns_path) if endpoint_patterns_path else None,
        skip_unknown_scopes=skip_unknown_scopes,
        on_warning=on_warning,
    )


def read_definitions(paths: Paths = (), *, skip_unknown_scopes: bool = False) -> Definitions:
    """Read and bind definitions, right or wrong; `paths` as in load_plan.

    Raises:
        InputError: a file cannot be read.
    """
    sources = definition_files(paths) or _shipped()
    parsed = tuple(parse_bytes(read_bytes(source), str(source)) for source in sources)
    bound = bind(parsed, skip_unknown_scopes=skip_unknown_scopes)
    return Definitions(parsed, bound.metrics, bound.diagnostics)


def definition_files(paths: Paths) -> list[Path]:
    """Return each file once: those named, and the `*.oal` files of the folders named.

    Raises:
        InputError: there is no such file in a folder.
    """
    found = {path.resolve(): path for given in each_path(paths) for path in _files(given)}
    return list(found.values())


def _shipped() -> list[Traversable]:
    folder = files("framewalk.queries") / "oal"
    found = (entry for entry in folder.iterdir() if entry.name.endswith(".oal"))
    return sorted(found, key=lambda entry: entry.name)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    inside = sorted(path.rglob("*.oal"))
    if not inside:
        raise InputError(path, "no *.oal file in this folder", "give a file or another folder")
    return inside


def read_bytes(source: Traversable) -> bytes:
    """Return a file's content.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return source.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(str(source), reason, "check the path and its permissions") from error
