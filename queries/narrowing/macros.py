"""The macros of a store, with no other columns than those that are asked for.

DuckDB binds a macro whole each time, all metrics of it: for a few that takes longer than to read
them. A macro of metrics is a selection inside of others (engine/views). Of each only what
is needed is kept, as a tree that DuckDB makes of its text.
"""

from __future__ import annotations

import json
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import duckdb

from framewalk.queries.reading import begin_again

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

# The macros are made of these tables, and to look for a macro takes ten times as long.
_MADE_OF: Final = (
    "SELECT (SELECT bit_xor(hash(name, scope, definition)) FROM internal.definitions), "
    "(SELECT bit_xor(hash(scope, state, column_name)) FROM internal.state_columns), "
    "(SELECT bit_xor(hash(name, until, definition)) FROM internal.meanings)"
)
_MACROS: Final = (
    "SELECT function_name, parameters, macro_definition FROM duckdb_functions() "
    "WHERE function_type = 'table_macro' AND database_name = current_database() AND ("
    "schema_name = 'internal' AND function_name LIKE '%\\_metrics' ESCAPE '\\' OR "
    "schema_name = 'main' AND function_name LIKE '%\\_between' ESCAPE '\\')"
)
# What stands for the rows of a range, and for a table that has some of them.
ROWS: Final = 'SELECT * FROM "own rows"'
TABLE: Final = '"own table"'
_OF_RANGE: Final = "since"
# What stands for a list of selected columns in the text of a tree.
_LISTED: Final = '"listed columns"'
# Pages ask for the same again and again. Any thread may ask.
_MOST_KNOWN: Final = 256
_MOST_STORES: Final = 16
_MOST_MACROS: Final = 64


# Parameters of macros with the values that they are known to have.
Choices: TypeAlias = tuple[tuple[str, str], ...]


class _Macro(NamedTuple):
    """The text of a macro, and its parameters."""

    text: str
    parameters: tuple[str, ...]


class _Column(NamedTuple):
    """A selected column: its name, its tree as JSON, and the columns that it is made of."""

    name: str
    tree: str
    needs: frozenset[str]


class _Pieces(NamedTuple):
    """The tree of a macro: JSON without its lists of columns, and these from the outside in.

    Of a range `rows` are those that are selected of a table (`TABLE`); ROWS stands for all.
    """

    around: list[str]
    lists: list[list[_Column]]
    rows: str


class _Part(NamedTuple):
    """What is kept of a macro; `choices` are parameters (by name) of which the values are known."""

    macro: _Macro
    wanted: frozenset[str]
    choices: Choices


_stores: dict[tuple[object, ...], dict[str, _Macro]] = {}
_pieces: dict[tuple[_Macro, Choices], _Pieces] = {}
_known: dict[_Part, str] = {}


def own_name(parameter: str) -> str:
    """Return the name that a parameter has in a narrowed macro, which no column has."""
    return parameter if " " in parameter else f"own {parameter}"


def stored_macros(connection: duckdb.DuckDBPyConnection) -> Macros | None:
    """Return the macros of a store; None where this is no store. Raises duckdb.Error."""
    try:
        made_of = connection.execute(_MADE_OF).fetchall()[0]
    except duckdb.CatalogException:
        # These are views of something else than a store.
        begin_again(connection)
        return None
    found = _stores.get(made_of)
    if found is None:
        rows = connection.execute(_MACROS).fetchall()
        found = {name: _Macro(text, tuple(names)) for name, names, text in rows}
        if len(_stores) >= _MOST_STORES:
            _stores.clear()
        _stores[made_of] = found
    return Macros(connection, found)


class Macros:
    """The macros that the views of a store are read from, and those of ranges, by name.

    All raise duckdb.Error.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, macros: Mapping[str, _Macro]) -> None:
        self.connection = connection
        # The ends of ranges that were asked for, by their SQL.
        self.ends: dict[tuple[str, str], tuple[int, int, int | None] | None] = {}
        self._macros = macros

    def __contains__(self, name: str) -> bool:
        """Tell whether there is such a macro."""
        return name in self._macros

    def parameters(self, name: str) -> tuple[str, ...]:
        """Return the names of a macro's parameters."""
        return self._macros[name].parameters

    def columns(self, name: str) -> list[str]:
        """Return the names of what a macro selects."""
        return [one.name for one in self._pieces(name, ()).lists[0]]

    def rows(self, name: str, choices: Choices = ()) -> str:
        """Return what a macro of a range selects of each table of states (`TABLE`)."""
        return self._pieces(name, choices).rows

    def selection(
        self, name: str, wanted: Collection[str], always: Collection[str], choices: Choices = ()
    ) -> str:
        """Return the selection that a macro is, with some of its columns.

        `always` are columns that are kept at each level. Parameters stand in it as columns
        (`own_name`), and the rows of a range as `ROWS`. Of the parameters in `choices` it is what
        it is where they have these values. Raises duckdb.Error.
        """
        part = _Part(self._macros[name], frozenset(wanted), choices)
        found = _known.get(part)
        if found is None:
            pieces = self._pieces(name, choices)
            found = _narrow(self.connection, pieces, part.wanted, frozenset(always))
            if len(_known) >= _MOST_KNOWN:
                _known.clear()
            _known[part] = found
        return found

    def _pieces(self, name: str, choices: Choices) -> _Pieces:
        macro = self._macros[name]
        found = _pieces.get((macro, choices))
        if found is None:
            found = _taken_apart(self.connection, macro, dict(choices))
            if len(_pieces) >= _MOST_MACROS:
                _pieces.clear()
            _pieces[macro, choices] = found
        return found


def _taken_apart(
    connection: duckdb.DuckDBPyConnection, macro: _Macro, choices: Mapping[str, str]
) -> _Pieces:
    tree = _settled(_tree(connection, macro.text), frozenset(macro.parameters), choices)
    node = tree["statements"][0]["node"]
    lists, rows = [], ""
    while node["type"] == "SELECT_NODE":
        lists.append(
            [
                _Column(_name(one), json.dumps(one), frozenset(_named(one)))
                for one in node["select_list"]
            ]
        )
        node["select_list"] = json.loads(_LISTED)
        inside = node["from_table"]
        while inside["type"] == "JOIN":
            inside = inside["left"]
        if inside["type"] != "SUBQUERY":
            break
        node = inside["subquery"]["node"]
        if node["type"] == "SET_OPERATION_NODE" and _OF_RANGE in macro.parameters:
            rows = _rows(connection, node["children"][0])
            inside["subquery"]["node"] = _tree(connection, ROWS)["statements"][0]["node"]
    return _Pieces(json.dumps(tree).split(_LISTED), lists, rows)


def _rows(connection: duckdb.DuckDBPyConnection, part: dict[str, Any]) -> str:
    """Return what one of several selections selects, of no table and without its condition."""
    tree = _tree(connection, f"FROM {TABLE}")
    node = tree["statements"][0]["node"]
    tree["statements"][0]["node"] = {**node, "select_list": part["select_list"]}
    return _text(connection, json.dumps(tree))


def _tree(connection: duckdb.DuckDBPyConnection, text: str) -> Any:  # noqa: ANN401 - a tree of JSON
    sql = "SELECT json_serialize_sql(?::VARCHAR)"
    return json.loads(connection.execute(sql, [text]).fetchall()[0][0])


def _text(connection: duckdb.DuckDBPyConnection, tree: str) -> str:
    sql = "SELECT json_deserialize_sql(?::JSON)"
    return str(connection.execute(sql, [tree]).fetchall()[0][0])


def _settled(tree: Any, parameters: frozenset[str], choices: Mapping[str, str]) -> Any:  # noqa: ANN401 - a tree of JSON
    """Give parameters names of their own, and take what a CASE is where its value is known."""
    if isinstance(tree, list):
        return [_settled(one, parameters, choices) for one in tree]
    if not isinstance(tree, dict):
        return tree
    if tree.get("class") == "CASE":
        tree = _chosen(tree, choices)
    settled = {key: _settled(one, parameters, choices) for key, one in tree.items()}
    names = settled.get("column_names", ())
    if len(names) == 1 and names[0] in parameters:
        settled["column_names"] = [own_name(names[0])]
    return settled


def _chosen(case: dict[str, Any], choices: Mapping[str, str]) -> dict[str, Any]:
    for check in case["case_checks"]:
        when = check["when_expr"]
        compared = [when.get("left"), when.get("right")]
        if when["type"] == "COMPARE_IN":
            compared = when["children"]
        names: list[str] = compared[0].get("column_names", []) if compared[0] else []
        if len(names) != 1 or names[0] not in choices:
            return case
        values = {one.get("literal", {}).get("text") for one in compared[1:]}
        if choices[names[0]] in values:
            # A CASE may have a name, as a column that is selected.
            then: dict[str, Any] = {**check["then_expr"], "alias": case["alias"]}
            return then
    return case


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
    return _text(connection, "".join(parts))


def _name(column: dict[str, Any]) -> str:
    """Return what a selected column is called."""
    return str(column["alias"] or column.get("column_names", [""])[-1])


def _named(value: Any) -> Iterator[str]:  # noqa: ANN401 - a tree of JSON
    """Yield the names of all columns that a tree speaks of."""
    if isinstance(value, dict):
        yield from value.get("column_names", ())
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _named(one)
