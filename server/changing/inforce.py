"""The definitions that are in force: read from files once, and kept as they were taken.

An engine that is started again has those that were taken, whatever has become of the files since.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, replace
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import TYPE_CHECKING, Final

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from framewalk.engine.errors import FramewalkError, InputError
from framewalk.engine.oal import load_plan_of_files
from framewalk.engine.telling import tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from framewalk.engine.oal import Plan
    from framewalk.engine.store import Store

_SUFFIX: Final = ".definitions"
_STATE: Final = "state.json"
_SCRIPT: Final = "definitions.oal"
_THRESHOLDS: Final = "apdex-thresholds.yml"
_PATTERNS: Final = "endpoint-patterns.yml"
_DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True)
class Sources:
    """Files and folders of definitions (the shipped ones without any), thresholds and patterns."""

    oal_paths: tuple[Path, ...] = ()
    apdex_path: Path | None = None
    endpoint_patterns_path: Path | None = None

    def plan(self, on_warning: Callable[[object], None] = lambda _warning: None) -> Plan:
        """Read them; raises DefinitionError and InputError."""
        return load_plan_of_files(
            self.oal_paths, self.apdex_path, self.endpoint_patterns_path, on_warning=on_warning
        )


@dataclass(frozen=True, slots=True)
class Pending:
    """What is to follow once definitions are in force: `metrics` made again, for a request."""

    request: str
    metrics: tuple[str, ...] = ()
    recompute_s: float = 0


@dataclass(frozen=True, slots=True)
class _State:
    """What is kept: under which configuration, from where it was taken, and in which folder.

    `digests` are of its files, by name; an earlier version wrote none.
    """

    configured: Sources
    sources: Sources
    folder: str
    pending: Pending | None = None
    digests: dict[str, str] = field(default_factory=dict)


_STATES: Final = TypeAdapter(_State)


@plain_dataclass(frozen=True, slots=True)
class Changes:
    """What other definitions would change, by names of metrics; `others` are not metrics."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]
    unchanged: int
    others: tuple[str, ...]

    def __bool__(self) -> bool:
        """Tell whether anything would change."""
        return bool(self.new or self.changed or self.gone or self.others)

    def named(self) -> dict[str, list[str]]:
        """Return the names by what becomes of them."""
        return {
            "new": list(self.new),
            "another meaning": list(self.changed),
            "gone": list(self.gone),
            "others": list(self.others),
        }


class InForce:
    """The definitions of a server: `plan`, and `kept`, the files in which it is kept.

    `has_changed` tells whether they are others than the server had before. What is kept and damaged
    is told, and read again from where it was taken, else from where it is configured; `lost` is
    what was to follow and cannot. Raises DefinitionError and InputError where those cannot be used.
    """

    def __init__(self, store_path: Path, configured: Sources, *, is_restart: bool) -> None:
        self.kept = configured
        self.sources = configured
        self.has_changed = False
        self.lost: Pending | None = None
        self._folder = store_path.with_name(store_path.name + _SUFFIX)
        self._configured = configured
        self._is_damaged = False
        state = self._read(is_told=True)
        before = self._sound_script(state) if state is not None else None
        is_own = state is not None and state.configured == configured
        self.pending = state.pending if state is not None and is_own else None
        if state is not None and is_own:
            self.sources = state.sources
            if is_restart and before is not None and (plan := self._kept_plan(state)) is not None:
                self.kept, self.plan = self._kept_in(state.folder), plan
                self.has_changed = self.pending is not None
                return
        self.plan = self._plan_again(state if before is not None else None)
        self.has_changed = self._is_damaged or (before is not None and before != _script(self.plan))
        try:
            self._keep(self.plan)
        except OSError as error:
            # An engine that is started again reads the files again.
            self.kept = self.sources
            tell(logging.WARNING, "definitions not kept", problem=error)

    def _plan_again(self, state: _State | None) -> Plan:
        """Read the files again; those that were applied may be gone, and are kept in `state`.

        Then what is kept goes on, and without it what is configured.
        """
        if self.sources == self._configured:
            return self.sources.plan(_told)
        names = ", ".join(map(str, self.sources.oal_paths))
        try:
            plan = self.sources.plan(_told)
        except (FramewalkError, OSError) as error:
            problem = str(error).splitlines()[0]
            if state is not None and (kept := self._kept_plan(state)) is not None:
                line = "definitions that were applied cannot be read, they stay as they were taken"
                tell(logging.ERROR, line, definitions=names, problem=problem)
                return kept
            line = "definitions that were applied cannot be read, those configured are in force"
            tell(logging.ERROR, line, definitions=names, problem=problem)
            self.sources, self.lost, self.pending = self._configured, self.pending, None
            return self.sources.plan(_told)
        tell(logging.WARNING, "definitions are those that were applied", definitions=names)
        return plan

    def candidate(self, oal_paths: tuple[Path, ...] = ()) -> tuple[Sources, Plan]:
        """Read definitions again, or others; raises DefinitionError and InputError."""
        configured, sources = self._configured, self.sources
        if oal_paths:
            others = (configured.apdex_path, configured.endpoint_patterns_path)
            is_configured = [one.resolve() for one in configured.oal_paths] == list(oal_paths)
            sources = configured if is_configured else Sources(oal_paths, *others)
        return sources, sources.plan(_told)

    def changes(self, store: Store, plan: Plan) -> Changes:
        """Compare a plan with what is in force; raises InputError where the store cannot have it.

        What the store defines otherwise has another meaning, in force or not.
        """
        (stored,) = store.run("SELECT list(name) FROM metrics")[0]
        known = {name.casefold(): name for name in stored or ()}
        for metric in plan.metrics:
            other = known.get(metric.name.casefold(), metric.name)
            if other != metric.name:
                problem = f"the store has a metric {other!r}, and its names do not tell case apart"
                raise InputError(metric.name, problem, "name it otherwise")
        before = {metric.name for metric in self.plan.metrics}
        after = {metric.name for metric in plan.metrics}
        changed = set(store.changed_meanings(plan))
        others = []
        if (plan.apdex_thresholds_ms, plan.apdex_default_ms) != (
            self.plan.apdex_thresholds_ms,
            self.plan.apdex_default_ms,
        ):
            others.append("Apdex thresholds")
        if plan.endpoint_patterns != self.plan.endpoint_patterns:
            others.append("patterns of endpoints")
        return Changes(
            tuple(sorted(after - before - changed)),
            tuple(sorted(changed)),
            tuple(sorted(before - after)),
            len(after & before - changed),
            tuple(others),
        )

    def take(self, sources: Sources, plan: Plan, pending: Pending) -> None:
        """Have the next engine compute a plan; raises OSError."""
        self.sources, self.pending = sources, pending
        self._keep(plan)

    def settled(self) -> None:
        """Note that what was pending is done, or is kept elsewhere; raises OSError."""
        state = self._read()
        if state is not None and state.pending is not None:
            self.pending = None
            self._write(replace(state, pending=None))

    def _keep(self, plan: Plan) -> None:
        before = self._read()
        number = 1 + int(before.folder) if before is not None and before.folder.isdigit() else 1
        self._folder.mkdir(parents=True, exist_ok=True)
        target = self._folder / str(number)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        (target / _SCRIPT).write_text(_script(plan), encoding="utf-8")
        thresholds = {_DEFAULT: plan.apdex_default_ms} | dict(plan.apdex_thresholds_ms)
        (target / _THRESHOLDS).write_text(yaml.safe_dump(thresholds), encoding="utf-8")
        if (patterns := plan.endpoint_patterns) is not None:
            lists = {_DEFAULT: patterns.default, **patterns.per_service}
            text = yaml.safe_dump({name: list(own) for name, own in lists.items()})
            (target / _PATTERNS).write_text(text, encoding="utf-8")
        digests = {one.name: _digest(one.read_bytes()) for one in target.iterdir()}
        own = (self._configured, self.sources, target.name, self.pending)
        self._write(_State(*own, digests))
        self.kept = self._kept_in(target.name)
        for other in self._folder.iterdir():
            if other.is_dir() and other != target:
                shutil.rmtree(other, ignore_errors=True)

    def _kept_in(self, folder: str) -> Sources:
        path = self._folder / folder
        patterns = path / _PATTERNS
        is_folding = patterns.exists()
        return Sources((path / _SCRIPT,), path / _THRESHOLDS, patterns if is_folding else None)

    def _kept_plan(self, state: _State) -> Plan | None:
        """Return what is kept, if another version of the program could write it so."""
        try:
            return self._kept_in(state.folder).plan()
        except (FramewalkError, OSError) as error:
            self._tell_damage(self._folder / state.folder, str(error).splitlines()[0])
            return None

    def _sound_script(self, state: _State) -> str | None:
        """Return the definitions that are kept, if all files are as they were written."""
        folder = self._folder / state.folder
        found = ""
        for name in {_SCRIPT: "", **state.digests}:
            path = folder / name
            try:
                content = path.read_bytes()
                found = content.decode() if name == _SCRIPT else found
            except (OSError, UnicodeDecodeError) as error:
                self._tell_damage(path, _explained(error))
                return None
            if state.digests and _digest(content) != state.digests.get(name):
                self._tell_damage(path, "it is not as it was written")
                return None
        return found

    def _tell_damage(self, path: Path, problem: str) -> None:
        self._is_damaged = True
        line = "definitions that are in force are damaged, they are read again where they were"
        tell(logging.ERROR, line, file=path, problem=problem)

    def _read(self, *, is_told: bool = False) -> _State | None:
        path = self._folder / _STATE
        try:
            return _STATES.validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            if is_told:
                self._tell_damage(path, _explained(error))
            return None

    def _write(self, state: _State) -> None:
        path = self._folder / _STATE
        partial = path.with_name(f"{_STATE}.partial")
        partial.write_bytes(_STATES.dump_json(state))
        partial.replace(path)


def _script(plan: Plan) -> str:
    return "".join(f"{metric.definition}\n" for metric in plan.metrics)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _explained(error: Exception) -> str:
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return "it is not what was written"


def _told(warning: object) -> None:
    tell(logging.WARNING, "definition", warning=warning)
