"""The shipped questions, as files: SQL in `queries/sql/`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from framewalk.engine.questions.places import places_of

_NEEDED: Final = re.compile(r"^-- Needs (.*)\.$", re.MULTILINE)
# A store has no view of logs: these are asked beside an archive.
_OF_ARCHIVE: Final = "-- Needs an archive of logs."
# A page of a series would be its beginning.
_WHOLE: Final = "-- Of one service it is printed whole."
_PLACE: Final = re.compile(r"\$(\w+)")


@dataclass(frozen=True, slots=True)
class Question:
    """SQL that answers something; `needed` are those of its places that nothing is left out for."""

    name: str
    text: str
    places: tuple[str, ...]
    needed: tuple[str, ...]

    @property
    def answers(self) -> str:
        """What it answers, as a sentence."""
        return self.text.partition("\n")[0].removeprefix("-- ")

    @property
    def is_of_archive(self) -> bool:
        """Whether it asks about logs that are kept, which are not in a store."""
        return _OF_ARCHIVE in self.text.splitlines()

    @property
    def is_series(self) -> bool:
        """Whether it is, of one service, a row for each time, and no list."""
        return _WHOLE in self.text.splitlines()

    @property
    def query(self) -> str:
        """The SQL without the semicolon at its end."""
        return self.text.rstrip().removesuffix(";")


def shipped_questions() -> dict[str, Question]:
    """Return the shipped questions by name, in the order of names."""
    return dict(_shipped())


@cache
def _shipped() -> tuple[tuple[str, Question], ...]:
    folder = files("framewalk.queries") / "sql"
    found = sorted(
        (entry.name.removesuffix(".sql"), entry)
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    )
    return tuple(
        (name, _question(name, entry.read_text(encoding="utf-8"))) for name, entry in found
    )


def _question(name: str, text: str) -> Question:
    needed = [one for line in _NEEDED.findall(text) for one in _PLACE.findall(line)]
    return Question(name, text, places_of(text), tuple(needed))
