"""Metric definitions: rows of the two tables of the specification, and of framewalk's own."""

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

SPEC = Path(__file__).parent.parent / "spec"
TABLES = (SPEC / "metrics.csv", SPEC / "monitoring-metrics.csv", SPEC / "own-metrics.csv")

OPERATORS = re.compile(
    r"^\s*(?P<attribute>[\w.]+)\s*"
    r"(?P<operator>==|!=|>=|<=|>|<|\blike\b|\bin\b|\bnot\s+contain\b|\bcontain\b)"
    r"\s*(?P<literal>.+?)\s*$"
)
INTEGER = re.compile(r"^-?[0-9][0-9_]*[lL]?$")
ENUM = re.compile(r"^\w+\.(\w+)$")

Literal = int | str | bool | None | tuple["Literal", ...]


@dataclass(frozen=True)
class Condition:
    """`attribute operator literal`; an Enum.VALUE is the string VALUE."""

    attribute: str
    operator: str
    literal: Literal


Argument = int | str | Condition
"""A number, the path of an attribute, or a condition."""


@dataclass(frozen=True)
class Definition:
    """One metric; `attribute` is `*` or a path, `filters` are AND."""

    name: str
    scope: str
    attribute: str
    function: str
    filters: tuple[Condition, ...] = ()
    arguments: tuple[Argument, ...] = ()


def read_definitions(paths: Iterable[Path] = TABLES) -> list[Definition]:
    """Return the definitions of the tables, each name once."""
    found: dict[str, Definition] = {}
    for path in paths:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                found.setdefault(row["metric"], definition_of(row))
    return list(found.values())


def definition_of(row: Mapping[str, str]) -> Definition:
    """Return the definition that a row of a table stands for."""
    return Definition(
        name=row["metric"],
        scope=row["scope"],
        attribute=row["attribute"],
        function=row["function"],
        filters=tuple(parse_condition(part) for part in row["filters"].split("&&") if part.strip()),
        arguments=tuple(
            _argument(part) for part in (row.get("arguments") or "").split(",") if part.strip()
        ),
    )


def parse_condition(text: str) -> Condition:
    """Return the condition written as `attribute operator literal`."""
    match = OPERATORS.match(text)
    if match is None:
        message = f"not a condition: {text!r}"
        raise ValueError(message)
    operator = re.sub(r"\s+", " ", match["operator"])
    return Condition(match["attribute"], operator, _literal(match["literal"]))


def _argument(text: str) -> Argument:
    text = text.strip()
    if OPERATORS.match(text):
        return parse_condition(text)
    return _integer(text) if INTEGER.match(text) else text


def _literal(text: str) -> Literal:
    named: dict[str, Literal] = {"true": True, "false": False, "null": None}
    enum = ENUM.match(text)
    if text.startswith("["):
        parts = [part.strip() for part in text.strip("[]").split(",")]
        return tuple(_literal(part) for part in parts if part)
    if text.startswith('"') and text.endswith('"'):
        return text[1:-1]
    if text in named:
        return named[text]
    if enum is not None:
        return enum[1]
    return _integer(text)


def _integer(text: str) -> int:
    return int(text.rstrip("lL").replace("_", ""))
