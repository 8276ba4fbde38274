"""Pages out of files: JSON with comments, one or several in each (dashboards.md, section 9)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from framewalk.engine.errors import InputError
from framewalk.queries.panels.model import Page

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHIPPED: Final = Path(__file__).parent / "pages"
# A text, or a comment.
_COMMENT: Final = re.compile(r'("(?:[^"\\\n]|\\.)*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_MOST_BYTES: Final = 8 << 20


class Severity(StrEnum):
    """Whether what is found can be used all the same."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong: the file, the place in it, the problem, what to do about it."""

    path: Path
    place: str
    problem: str
    remedy: str
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        """Return it for a person."""
        where = f"{self.path}: {self.place}" if self.place else str(self.path)
        return f"{where}: {self.severity}: {self.problem}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Found:
    """A page, the file that it is from and what the file calls it; `content` is all of it."""

    path: Path
    id: str
    page: Page
    content: dict[str, Any]


def shipped_pages() -> list[Found]:
    """Return the pages that ship with framewalk."""
    pages, _ = read_pages()
    return pages


def read_pages(*paths: Path) -> tuple[list[Found], list[Finding]]:
    """Read files, and every `*.json` of folders and of those in them; one with faults is left out.

    Without any these are the pages that ship. Raises InputError where there is none of a name.
    """
    pages: list[Found] = []
    findings: list[Finding] = []
    for path in [file for one in paths or (_SHIPPED,) for file in _files_of(one)]:
        try:
            pages += _pages_of(path)
        except _FaultError as fault:
            findings.append(fault.finding)
    findings += _clashes(pages)
    return pages, findings


def marks_of(*paths: Path) -> dict[Path, tuple[int, int] | None]:
    """Return each file that `read_pages` reads, with what changes as it does: time and size.

    A file that is gone has None. Raises InputError where there is none of a name.
    """
    return {file: _mark_of(file) for one in paths for file in _files_of(one)}


def _mark_of(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(path.rglob("*.json"))
    if not path.exists():
        raise InputError(path, "this is not there", "name a file, or a folder with *.json of pages")
    return [path]


class _FaultError(Exception):
    def __init__(self, path: Path, place: str, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.finding = Finding(path, place, problem, remedy)


def _pages_of(path: Path) -> Iterator[Found]:
    content = _json_of(path)
    for number, one in enumerate(content if isinstance(content, list) else [content]):
        page = one.get("configuration") if isinstance(one, dict) else None
        if isinstance(page, str):
            # As a UI exports what it was sent.
            page = _parsed(path, page, f"[{number}].configuration: ")
        if not isinstance(page, dict):
            problem = "there is no page: an object with an id and a configuration"
            raise _FaultError(path, f"[{number}]", problem, "see docs/panels.md for the form")
        try:
            read = Page.model_validate(page)
        except ValidationError as error:
            raise _of_validation(path, number, error) from error
        yield Found(path, str(one.get("id") or read.name), read, page)


def _json_of(path: Path) -> Any:  # noqa: ANN401 - whatever JSON holds
    try:
        size_bytes = path.stat().st_size
        if size_bytes > _MOST_BYTES:
            problem = f"{size_bytes:,} bytes are no page"
            raise _FaultError(path, "", problem, f"at most {_MOST_BYTES:,} are read")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise _FaultError(path, "", reason, "check its permissions") from error
    except UnicodeDecodeError as error:
        raise _FaultError(path, "", "this is not UTF-8 text", "save it as such") from error
    return _parsed(path, text, "")


def _parsed(path: Path, text: str, before: str) -> Any:  # noqa: ANN401 - as above
    try:
        return json.loads(_without_comments(text))
    except json.JSONDecodeError as error:
        place = f"{before}line {error.lineno}, column {error.colno}"
        problem = f"this is not JSON: {error.msg[0].lower()}{error.msg[1:]}"
        raise _FaultError(path, place, problem, "mend it there, or a little before") from error
    except RecursionError as error:
        raise _FaultError(path, before, "this is nested too deeply", "make it flatter") from error


def _without_comments(text: str) -> str:
    """Return JSON of the same lines and columns, with blanks in place of comments."""
    return _COMMENT.sub(lambda found: found[1] or re.sub(r"[^\n]", " ", found[0]), text)


def _of_validation(path: Path, number: int, error: ValidationError) -> _FaultError:
    first = error.errors(include_url=False, include_input=False)[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    problem = first["msg"][0].lower() + first["msg"][1:]
    remedy = "see docs/panels.md for the form"
    return _FaultError(path, f"[{number}].configuration{place}", problem, remedy)


def _clashes(pages: list[Found]) -> Iterator[Finding]:
    """Yield the pages that have what must be unique in common with an earlier one."""
    names: dict[tuple[str, ...], Path] = {}
    for one in pages:
        key = (one.page.layer, one.page.entity, one.page.name)
        if key in names:
            problem = f"{one.page.name!r} of {one.page.entity} is also in {names[key].name}"
            yield Finding(one.path, "", problem, "give one of them another name")
        names.setdefault(key, one.path)
