"""Dashboards of UIs: those in files, and edits of them in a file of ours.

The files stay as they are; an edit is kept apart and comes first. A file that changes is read again
when somebody asks; while it is wrong, that is told once and what was read before stays.
"""

from __future__ import annotations

import json
import logging
import uuid
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from framewalk.engine.errors import InputError
from framewalk.queries.panels import Severity, marks_of, read_pages

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_LOG: Final = logging.getLogger(__name__)
_SETTING: Final = "SW_ENABLE_UPDATE_UI_TEMPLATE"
_MOST_TEMPLATES: Final = 1_000
_MOST_CHARACTERS: Final = 1 << 20


class Templates:
    """Dashboards by their identifiers; used from several threads."""

    def __init__(
        self, paths: Sequence[Path] = (), edits: Path | None = None, *, keeps_edits: bool = True
    ) -> None:
        """Read files, or folders of them, and what was edited; raises InputError.

        Without any it has the pages that ship with framewalk. New edits are kept if it
        `keeps_edits`.
        """
        self._paths = paths
        self._marks = marks_of(*paths)
        self._files = _pages(paths)
        self._edits_path = edits if keeps_edits else None
        self._edits: dict[str, str | None] = {}
        if edits is not None and edits.exists():
            self._edits = _read_edits(edits)
        self._fault = ""
        self._lock = Lock()

    def all(self) -> list[dict[str, str]]:
        """Return those that are not hidden."""
        with self._lock:
            self._read_again()
            found = self._files | self._edits
        return [
            {"id": name, "configuration": text} for name, text in found.items() if text is not None
        ]

    def get(self, name: str) -> dict[str, str] | None:
        """Return one, None where there is none."""
        return next((one for one in self.all() if one["id"] == name), None)

    def add(self, configuration: str) -> dict[str, Any]:
        """Keep a new one, and return how that went."""
        return self._change(str(uuid.uuid4()), configuration, is_new=True)

    def change(self, name: str, configuration: str) -> dict[str, Any]:
        """Keep another text for one."""
        return self._change(name, configuration)

    def hide(self, name: str) -> dict[str, Any]:
        """Show one no more."""
        return self._change(name, None)

    def _change(
        self, name: str, configuration: str | None, *, is_new: bool = False
    ) -> dict[str, Any]:
        if self._edits_path is None:
            shown = "" if is_new else name
            return _told(shown, f"Dashboards cannot be edited here; set {_SETTING} to true.")
        if configuration is not None and (problem := _problem(configuration)):
            return _told(name, problem)
        with self._lock:
            self._read_again()
            if not is_new and name not in self._files | self._edits:
                return _told(name, "There is no dashboard with this id.")
            edits = self._edits | {name: configuration}
            if len(edits) > _MOST_TEMPLATES:
                return _told(name, f"There are {_MOST_TEMPLATES:,} edits, as many as may be.")
            try:
                _write(self._edits_path, edits)
            except OSError as error:
                return _told(name, f"The edit cannot be kept ({(error.strerror or '').lower()}).")
            self._edits = edits
        return {"id": name, "status": True, "message": ""}

    def _read_again(self) -> None:
        """Read the files once more if one of them is not as it was."""
        try:
            marks = marks_of(*self._paths)
            if marks == self._marks:
                return
            self._marks = marks
            self._files = _pages(self._paths)
            self._fault = ""
        except InputError as error:
            if str(error) != self._fault:
                _LOG.warning("pages of panels are not read again, the old ones stay: %s", error)
            self._fault = str(error)


def _told(name: str, message: str) -> dict[str, Any]:
    return {"id": name, "status": False, "message": message}


def _problem(configuration: str) -> str:
    if len(configuration) > _MOST_CHARACTERS:
        return f"The dashboard is longer than {_MOST_CHARACTERS:,} characters."
    try:
        is_object = isinstance(json.loads(configuration), dict)
    except (ValueError, RecursionError):
        is_object = False
    return "" if is_object else "The configuration is no JSON object."


def _write(path: Path, edits: dict[str, str | None]) -> None:
    temporary = path.with_name(f"{path.name}.partial")
    temporary.write_text(json.dumps(edits, indent=1), encoding="utf-8")
    temporary.replace(path)


def _read_edits(path: Path) -> dict[str, str | None]:
    found = _json(path)
    if not isinstance(found, dict):
        raise InputError(path, "these are no edits of dashboards", "move it away")
    return {str(name): None if text is None else str(text) for name, text in found.items()}


def _pages(paths: Sequence[Path]) -> dict[str, str | None]:
    """Return the configurations of all pages of files, or of those that ship, by identifier."""
    pages, findings = read_pages(*paths)
    for finding in findings:
        if finding.severity is Severity.ERROR:
            problem = f"{finding.place}: {finding.problem}" if finding.place else finding.problem
            raise InputError(finding.path, problem, finding.remedy)
    return {one.id: json.dumps(one.content, ensure_ascii=False) for one in pages}


def _json(path: Path) -> Any:  # noqa: ANN401 - whatever is there
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            path, f"this cannot be read ({error})", "mend it, or leave it out"
        ) from error
