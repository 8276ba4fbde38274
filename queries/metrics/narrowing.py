"""The rows of a view, with no other columns than those that are asked for.

DuckDB binds a view whole each time, all metrics of it: for a few that takes longer than to read
them. The macro that it is read from is a selection inside of others (engine/store/views.py). Of
each only what is needed is kept, as a tree that DuckDB makes of its text.
"""

from __future__ import annotations

import json
import re
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import duckdb

from framewalk.engine.oal import SCOPES
from framewalk.engine.store import literal, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from framewalk.queries.metrics.buckets import Step
    from framewalk.queries.metrics.statements import Reader

_TIME: Final = "time_bucket"
_KEYS: Final = {scope.view: frozenset(scope.keys) for scope in SCOPES.values()}
# The macros are made of these tables, and to look for a macro takes ten times as long.
_MADE_OF: Final = (
    "SELECT (SELECT bit_xor(hash(name, scope, definition)) FROM internal.definitions), "
    "(SELECT bit_xor(hash(scope, state, column_name)) FROM internal.state_columns), "
    "(SELECT bit_xor(hash(name, until, definition)) FROM internal.meanings)"
)
_MACROS: Final = (
    "SELECT function_name, macro_definition FROM duckdb_functions() "
    "WHERE schema_name = 'internal' AND function_name LIKE '%\\_metrics' ESCAPE '\\'"
)
_ENTITIES: Final = "internal.{}_entities"
_RESOLUTION, _MINUTES = quoted("own resolution"), quoted("own minutes")
# Rows of another resolution: DuckDB would leave them out, once all is bound.
_NEVER: Final = re.compile(r"UNION ALL \(SELECT \* FROM [\w.]+ WHERE \('(\w+)' = '(?!\1')\w+'\)\)")
# What stands for a list of selected columns in the text of a tree.
_LISTED: Final = '"listed columns"'
# Pages ask for the same again and again. Any thread may ask.
_MOST_KNOWN: Final = 256
_MOST_STORES: Final = 16
_MOST_MACROS: Final = 64


class _Column(NamedTuple):
    """A selected column: its name, its tree as JSON, and the columns that it is made of."""

    name: str
    tree: str
    needs: frozenset[str]


class _Pieces(NamedTuple):
    """The tree of a macro: JSON without its lists of columns, and these from the outside in."""

    around: list[str]
    lists: list[list[_Column]]


_macros: dict[tuple[object, ...], dict[str, str]] = {}
_pieces: dict[str, _Pieces] = {}
_known: dict[tuple[str, frozenset[str]], str] = {}


def narrowed(
    reader: Reader, scope: str, step: Step, columns: Iterable[str], minutes: int
) -> str | None:
    """Return a selection of some metrics (by column) of a scope's view, with time and names.

    `minutes` is what a rate is divided by. None where the reader is no connection, or its store has
    no such macro: then there is the view. Raises duckdb.Error.
    """
    if not isinstance(reader, duckdb.DuckDBPyConnection):
        return None
    text = _macro(reader, scope)
    if text is None:
        return None
    wanted = frozenset(columns)
    found = _known.get((text, wanted))
    if found is None:
        found = _narrow(reader, _pieces_of(reader, text), wanted, _KEYS[scope] | {_TIME})
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[text, wanted] = found
    filled = found.replace(_RESOLUTION, literal(step.resolution)).replace(_MINUTES, str(minutes))
    return _NEVER.sub("", filled)


def renamed(narrow: str, scope: str, entities: str) -> str:
    """Return a narrowed selection over other entities: their rows become those of new names.

    `entities` is SQL that has the columns of the scope's table of entities. What has the same names
    in it is merged as states are, before values are made of them.
    """
    return narrow.replace(f" {_ENTITIES.format(scope)} ", f" ({entities}) ")


def entities_of(scope: str) -> str:
    """Return the table of a scope's entities, which has a number and the names of each."""
    return _ENTITIES.format(scope)


def _macro(connection: duckdb.DuckDBPyConnection, scope: str) -> str | None:
    try:
        made_of = connection.execute(_MADE_OF).fetchall()[0]
    except duckdb.CatalogException:
        # These are views of something else than a store.
        return None
    found = _macros.get(made_of)
    if found is None:
        found = dict(connection.execute(_MACROS).fetchall())
        if len(_macros) >= _MOST_STORES:
            _macros.clear()
        _macros[made_of] = found
    return found.get(f"{scope}_metrics")


def _pieces_of(connection: duckdb.DuckDBPyConnection, text: str) -> _Pieces:
    found = _pieces.get(text)
    if found is None:
        found = _taken_apart(connection, text)
        if len(_pieces) >= _MOST_MACROS:
            _pieces.clear()
        _pieces[text] = found
    return found


def _taken_apart(connection: duckdb.DuckDBPyConnection, text: str) -> _Pieces:
    sql = "SELECT json_serialize_sql(?::VARCHAR)"
    ((serialized,),) = connection.execute(sql, [text]).fetchall()
    tree = json.loads(serialized)
    node = tree["statements"][0]["node"]
    lists = []
    while True:
        lists.append(
            [
                _Column(_name(one), json.dumps(one), frozenset(_named(one)))
                for one in node["select_list"]
            ]
        )
        node["select_list"] = json.loads(_LISTED)
        inside = node["from_table"]
        if inside["type"] != "SUBQUERY":
            return _Pieces(json.dumps(tree).split(_LISTED), lists)
        node = inside["subquery"]["node"]


def _narrow(
    connection: duckdb.DuckDBPyConnection,
    pieces: _Pieces,
    wanted: frozenset[str],
    always: frozenset[str],
) -> str:
    """Return the SQL of a macro with what is wanted, and what that is made of further inside."""
    lists = []
    for columns in pieces.lists:
        chosen = [one for one in columns if one.name in wanted or one.name in always]
        lists.append(f"[{', '.join(one.tree for one in chosen)}]")
        wanted = frozenset[str]().union(*(one.needs for one in chosen))
    parts = chain.from_iterable(zip_longest(pieces.around, lists, fillvalue=""))
    sql = "SELECT json_deserialize_sql(?::JSON)"
    ((narrow,),) = connection.execute(sql, ["".join(parts)]).fetchall()
    return str(narrow)


def _name(column: dict[str, Any]) -> str:
    """Return what a selected column is called."""
    return str(column["alias"] or column.get("column_names", [""])[-1])


def _named(value: Any) -> Iterator[str]:  # noqa: ANN401 - a tree of JSON
    """Yield the names of all columns that a tree speaks of."""
    if isinstance(value, dict):
        yield from value.get("column_names", ())[-1:]
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _named(one)
