"""Names of tables, views and columns of a store, and those of entities, as DuckDB SQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from framewalk.engine.oal import Scope


BUCKET: Final = "time_bucket"
ENTITY: Final = "entity"
# How much of a bucket has passed, by the newest minute that the store has.
MINUTES: Final = "minutes"


@dataclass(frozen=True, slots=True)
class Resolution:
    """The length of a bucket; `name` is the last part of a view's name."""

    name: str
    minutes: int


RESOLUTIONS: Final = (Resolution("minute", 1), Resolution("hour", 60), Resolution("day", 1440))


def quoted(identifier: str) -> str:
    """Return an identifier as SQL."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a string as SQL."""
    return "'" + text.replace("'", "''") + "'"


def states_table(scope: Scope) -> str:
    """Return the name of the table that holds a scope's states that are not rolled up yet."""
    return f"internal.{scope.view}_states"


def rolled_table(scope: Scope, resolution: Resolution) -> str:
    """Return the name of the table that holds a scope's states rolled up to a resolution."""
    return f"internal.{scope.view}_{resolution.name}s"


def entities_table(scope: Scope) -> str:
    """Return the name of the dictionary of a scope's entities."""
    return f"internal.{scope.view}_entities"


def seen_table(scope: Scope) -> str:
    """Return the name of the table that says when entities were seen, and what they were like."""
    return f"internal.{scope.view}_seen"


def tables_of_states(scope: Scope) -> list[str]:
    """Return the names of all tables with a scope's states; they have the same columns."""
    return [states_table(scope), *(rolled_table(scope, one) for one in RESOLUTIONS)]


def view_name(scope: Scope, resolution: Resolution) -> str:
    """Return the name of the view of a scope's metrics."""
    return f"{scope.view}_{resolution.name}"


def entity_id(scope: Scope) -> str:
    """Return the expression for an entity's identifier (analysis.md, section 7)."""
    names = [name for name in scope.keys if name != "derivation"]
    if scope.view == "service_relation":
        return f"{_service_id(names[0])} || '-' || {_service_id(names[1])}"
    if scope.view == "endpoint_relation":
        parts = [_service_id(name) if name.endswith("service") else _base64(name) for name in names]
        return " || '-' || ".join(parts)
    sides = [names[at : at + 2] for at in range(0, len(names), 2)]
    return " || '-' || ".join(_side_id(side) for side in sides)


def _side_id(names: Sequence[str]) -> str:
    service = _service_id(names[0])
    return service if len(names) == 1 else f"{service} || '_' || {_base64(names[1])}"


def _service_id(name: str) -> str:
    return f"{_base64(name)} || '.1'"


def _base64(name: str) -> str:
    return f"to_base64(encode({quoted(name)}))"


def entity_name(scope: Scope) -> str:
    """Return the expression for an entity's name as a person reads it."""
    names = [quoted(name) for name in scope.keys if name != "derivation"]
    if "source_service" not in scope.keys:
        return " || ' ' || ".join(names)
    half = len(names) // 2
    sides = [" || ' ' || ".join(side) for side in (names[:half], names[half:])]
    return " || ' -> ' || ".join(sides)
