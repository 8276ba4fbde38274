"""What a query of somebody else may do: read the store, and nothing else.

Four walls, each enough for most attempts: `secure` takes files, extensions and settings from the
whole database instance; a query must be one statement that reads; the functions it names must not
act on anything; and it runs in a read-only transaction. What it becomes when DuckDB writes out
its names is bounded before, in `weighing`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import duckdb

from framewalk.engine.errors import InputError
from framewalk.engine.views import literal
from framewalk.queries.reading.query import QUERY_PLACE
from framewalk.queries.reading.readable import Checked
from framewalk.queries.reading.trees import all_objects, read_tree, serialized
from framewalk.queries.reading.weighing import (
    MOST_TREE_CHARACTERS,
    check_text,
    check_tree,
    table_weights,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from framewalk.queries.reading.trees import Tree

READS_ONLY: Final = "this would change the store, and framewalk sql only reads"
# The settings that the server itself changes for each query.
MEMORY_SETTING: Final = "operator_memory_limit"

# Table functions can act on the instance (checkpoint), on files or on memory (arrow_scan); these
# only compute, or tell what is in the catalogue. The others are refused, known or not.
_COMPUTING: Final = frozenset(
    re.findall(
        r"\w+",
        "generate_series histogram histogram_values json_each json_tree query_table range repeat "
        "repeat_row summary test_all_types unnest",
    )
)
_TELLING: Final = frozenset(
    re.findall(
        r"\w+",
        "collations database_list database_size duckdb_columns duckdb_constraints duckdb_databases "
        "duckdb_dependencies duckdb_functions duckdb_indexes duckdb_keywords duckdb_memory "
        "duckdb_schemas duckdb_sequences duckdb_settings duckdb_tables duckdb_temporary_files "
        "duckdb_types duckdb_variables duckdb_views functions icu_calendar_names metadata_info "
        "pg_timezone_names platform pragma_collations pragma_database_size pragma_metadata_info "
        "pragma_platform pragma_show pragma_storage_info pragma_table_info pragma_user_agent "
        "pragma_version show show_databases show_tables show_tables_expanded storage_info "
        "table_info user_agent version",
    )
)
_ACTING_SCALARS: Final = frozenset({"nextval", "setval", "sleep_ms", "write_log"})
_FUNCTION_NAME: Final = re.compile(r'"function_name"\s*:\s*("(?:[^"\\]|\\.)*")')
# Where a table stands by such a name, DuckDB looks for a file.
_FILE_NAME: Final = re.compile(r"[/\\:]|\.[A-Za-z0-9]+$")
_NAMES_OF_TABLE: Final = ("catalog_name", "schema_name", "table_name")
_BY_NAME: Final = "query_table"
_LIST: Final = "list_value"
_EXPLAIN: Final = re.compile(
    r"explain(\s+analyze)?(\s*\([\w\s,]*\))?\s+(?P<query>.*)", re.IGNORECASE | re.DOTALL
)
_READING: Final = frozenset({duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN})
_CHANGING: Final = frozenset(
    {
        duckdb.StatementType.ALTER,
        duckdb.StatementType.CREATE,
        duckdb.StatementType.DELETE,
        duckdb.StatementType.DROP,
        duckdb.StatementType.INSERT,
        duckdb.StatementType.MERGE_INTO,
        duckdb.StatementType.UPDATE,
    }
)


def secure(connection: duckdb.DuckDBPyConnection, archive: Path | None = None) -> None:
    """Take files, extensions, settings and Python's variables from a whole database instance.

    The files in the folder of an archive can be read through views.

    It goes for every connection of the instance, and cannot be undone while it is open. Writing
    to the database, checkpoints and frames that are registered work as before.
    """
    path = database_path(connection)
    # The copies that snapshots are made of.
    copies = [] if path is None else [snapshot_folder(path)]
    folders = [*copies, *([] if archive is None else [archive])]
    allowed = ", ".join(literal(f"{folder}/") for folder in folders)
    for setting in (
        "python_enable_replacements = false",
        "autoload_known_extensions = false",
        "autoinstall_known_extensions = false",
        "allow_community_extensions = false",
        f"allowed_directories = [{allowed}]",
        f"allowed_configs = [{literal(MEMORY_SETTING)}]",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}").fetchall()


def database_path(connection: duckdb.DuckDBPyConnection) -> Path | None:
    """Return the file of a connection's database; None for one in memory."""
    (path,) = connection.execute(
        "SELECT path FROM duckdb_databases() WHERE database_name = current_database()"
    ).fetchall()[0]
    return None if path is None else Path(path)


def snapshot_folder(store: Path) -> Path:
    """Return the folder beside a store where the copies for snapshots are made."""
    return store.with_name(f"{store.name}.snapshot")


class Sandbox:
    """Tells which statements may run."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        rows = connection.execute(
            "SELECT DISTINCT lower(function_name) FROM duckdb_functions() "
            "WHERE function_type IN ('table', 'pragma') "
            "OR function_type = 'table_macro' AND internal"
        ).fetchall()
        self._refused = {name for (name,) in rows} - _COMPUTING - _TELLING | _ACTING_SCALARS
        self._known = table_weights(connection)

    def checked(self, connection: duckdb.DuckDBPyConnection, text: str) -> Checked:
        """Return the one statement of a query, which may run.

        Raises:
            InputError: it is none, or several, may not run, or is too large.
            duckdb.Error: it is not SQL.
        """
        check_text(text)
        statements = connection.extract_statements(text)
        if len(statements) != 1:
            raise _refusal(*_NUMBER_WANTED[bool(statements)])
        (statement,) = statements
        if statement.type not in _READING:
            raise _not_reading(statement.type)
        before, query = _reading_part(connection, statement)
        tree = _tree(connection, query)
        self._check_functions(tree)
        root = read_tree(tree)
        self._check_tables(root)
        check_tree(root, self._known)
        return Checked(statement, before, query, root)

    def _check_tables(self, tree: Tree) -> None:
        """Refuse files where tables stand: views alone may read those of an archive."""
        for node in all_objects(tree):
            kind = node.get("type")
            if kind == "BASE_TABLE":
                parts = (node.get(part, "") for part in _NAMES_OF_TABLE)
                for name in parts:
                    if name.casefold() not in self._known and _FILE_NAME.search(name):
                        raise _no_file(name)
            elif kind == "TABLE_FUNCTION" and _is_by_name(node):
                self._check_texts(node)

    @staticmethod
    def _check_texts(node: Tree) -> None:
        """Let a table be named by a text, and not by one that is put together."""
        for inner in all_objects(node["function"].get("arguments", ())):
            text = inner.get("text", "")
            # Other objects of the tree are no expressions.
            is_name = (
                inner.get("class", "CONSTANT") == "CONSTANT" or inner.get("function_name") == _LIST
            )
            if not is_name or _FILE_NAME.search(text):
                raise _no_file(text or "what is put together here")

    def _check_functions(self, tree: str) -> None:
        for name in _functions(tree):
            if name.casefold() in self._refused:
                problem = f"the function {name} is not for queries"
                remedy = "ask the views, or use a copy: framewalk snapshot"
                raise _refusal(problem, remedy)


def _is_by_name(node: Tree) -> bool:
    return bool(node.get("function", {}).get("function_name", "").casefold() == _BY_NAME)


def _no_file(name: str) -> InputError:
    problem = f"{name} is a file, or may be one, and files are not for queries"
    return _refusal(problem, "ask the views")


_NUMBER_WANTED: Final = {
    False: ("there is no SQL in it", "write a query, or name one"),
    True: ("it has several statements", "a running server answers one at a time"),
}


def _reading_part(
    connection: duckdb.DuckDBPyConnection, statement: duckdb.Statement
) -> tuple[str, str]:
    """Return what asks for the explanation of a query, and the query."""
    if statement.type == duckdb.StatementType.SELECT:
        return "", statement.query
    text = statement.query.strip()
    match = _EXPLAIN.fullmatch(text)
    # Anything can be explained, and with ANALYZE is run.
    inner = connection.extract_statements(match["query"]) if match is not None else []
    if match is None or len(inner) != 1 or inner[0].type != duckdb.StatementType.SELECT:
        problem = "only queries can be explained"
        raise _refusal(problem, "explain a SELECT or FROM")
    return text[: match.start("query")], inner[0].query


def _tree(connection: duckdb.DuckDBPyConnection, text: str) -> str:
    """Return DuckDB's own tree of a query, as JSON."""
    tree = serialized(connection, text)
    if tree is None:
        problem = "this kind of query cannot be checked"
        raise _refusal(problem, "ask with SELECT or FROM")
    if len(tree) > MOST_TREE_CHARACTERS:
        problem = "this query is too large"
        raise _refusal(problem, "ask a simpler one")
    return tree


def _functions(tree: str) -> Iterable[str]:
    """Give the functions that a query names, wherever in it."""
    # A quotation mark inside a text has a backslash before it, so only the tree's own names are
    # found.
    return {json.loads(name) for name in _FUNCTION_NAME.findall(tree)}


def _not_reading(kind: duckdb.StatementType) -> InputError:
    if kind in _CHANGING:
        return _refusal(READS_ONLY, "ask with SELECT or FROM")
    if kind == duckdb.StatementType.MULTI:
        problem = "DuckDB makes several statements of this PIVOT"
        return _refusal(problem, "name the values: PIVOT ... ON column IN (...)")
    name = kind.name.replace("_", " ")
    problem = f"a running server answers queries only, and this is {name}"
    return _refusal(problem, "ask with SELECT or FROM, or use a copy: framewalk snapshot")


def _refusal(problem: str, remedy: str) -> InputError:
    return InputError(QUERY_PLACE, problem, remedy)
