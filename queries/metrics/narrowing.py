"""The rows of a view, with no other columns than those that are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import duckdb

from framewalk.queries.narrowing import rows_of_view, stored_macros

if TYPE_CHECKING:
    from collections.abc import Iterable

    from framewalk.queries.metrics.buckets import Step
    from framewalk.queries.metrics.statements import Reader

_ENTITIES: Final = "internal.{}_entities"


def narrowed(
    reader: Reader, scope: str, step: Step, columns: Iterable[str], minutes: int
) -> str | None:
    """Return a selection of some metrics (by column) of a scope's view, with time and names.

    `minutes` is what a rate is divided by. None where the reader is no connection, or its store has
    no such macro: then there is the view. Raises duckdb.Error.
    """
    if not isinstance(reader, duckdb.DuckDBPyConnection):
        return None
    macros = stored_macros(reader)
    if macros is None or f"{scope}_metrics" not in macros:
        return None
    return rows_of_view(macros, scope, step.resolution, list(columns), minutes)


def renamed(narrow: str, scope: str, entities: str) -> str:
    """Return a narrowed selection over other entities: their rows become those of new names.

    `entities` is SQL that has the columns of the scope's table of entities. What has the same names
    in it is merged as states are, before values are made of them.
    """
    return narrow.replace(f" {_ENTITIES.format(scope)} ", f" ({entities}) ")


def entities_of(scope: str) -> str:
    """Return the table of a scope's entities, which has a number and the names of each."""
    return _ENTITIES.format(scope)
