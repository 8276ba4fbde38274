"""How large a query becomes when DuckDB binds it, told before it does.

A name may stand for a query, and be used twice in the next one: a kilobyte of common table
expressions, of `SELECT *, *` or of aliases that use each other doubles with every line. DuckDB
writes all of it out, and while it does so hears no interrupt. So the text is bounded before it
is parsed, and the tree before it is bound.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import duckdb

from framewalk.engine.errors import InputError
from framewalk.queries.reading.query import QUERY_PLACE
from framewalk.queries.reading.trees import objects

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from framewalk.queries.reading.trees import Tree

# A parser that meets an error tries again from every bracket and every sign, so these multiply.
_MOST_BRACKETS: Final = 100
_MOST_SIGNS: Final = 50
_MOST_TEXT_BYTES: Final = 1 << 16
MOST_TREE_CHARACTERS: Final = 1 << 22
_MOST_DEPTH: Final = 50
_MOST_NAMED: Final = 200
_MOST_JOINS: Final = 100
# What is counted as often as it is used.
_MOST_TABLES: Final = 1_000
_MOST_COLUMNS: Final = 20_000
_MOST_REFERENCES: Final = 20_000
# metric_values has half a million characters, and takes DuckDB seconds.
_MOST_VIEW_CHARACTERS: Final = 2_000_000
_SIGNS: Final = frozenset("+-~!@#^&|*/%<>=?")
_LONG: Final = "long"
_NESTED: Final = "nested"
_LARGE: Final = "large"
_WORD: Final = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Weight:
    """What a query is when all its names are written out; `columns` are those of its result."""

    tables: int = 0
    references: int = 0
    columns: int = 0
    view_characters: int = 0

    def __add__(self, other: Weight) -> Weight:
        """Add up two that stand beside each other."""
        return Weight(
            self.tables + other.tables,
            self.references + other.references,
            self.columns + other.columns,
            self.view_characters + other.view_characters,
        )


_UNKNOWN: Final = Weight(tables=1, columns=1)
# metric_values reads a macro, which reads views, which read macros.
_DEEPEST: Final = 4
_MADE_UP: Final = "query_table"
# A view over files has more of them with every commit, and is bound fast.
_OF_FILES: Final = "read_parquet("
_MOST_OF_FILES: Final = 20_000
# Columns of the store's macros: they have those of their scope's views.
_MOST_OF_A_MACRO: Final = 500


def table_weights(connection: duckdb.DuckDBPyConnection) -> dict[str, Weight]:
    """Return the weights of all tables and views of a database, by their names in lower case."""
    columns = dict(
        connection.execute(
            "SELECT lower(table_name), max(column_index) FROM duckdb_columns() GROUP BY ALL"
        ).fetchall()
    )
    # A view or macro is all that it names; what is so deep is as deep as the store's go.
    texts = dict(
        connection.execute(
            "SELECT lower(view_name), lower(sql) FROM duckdb_views() WHERE NOT internal "
            "UNION ALL SELECT lower(function_name) || '()', lower(macro_definition) "
            "FROM duckdb_functions() WHERE function_type = 'table_macro' AND NOT internal"
        ).fetchall()
    )
    characters = _written_out(texts)
    return {
        name: Weight(tables=1, columns=count, view_characters=characters.get(name, 0))
        for name, count in columns.items()
    } | {
        name: Weight(tables=1, columns=_MOST_OF_A_MACRO, view_characters=count)
        for name, count in characters.items()
        if name.endswith("()")
    }


def _written_out(texts: Mapping[str, str]) -> dict[str, int]:
    """Return the characters of views and macros (`name()`) with those that they name."""
    named = {
        name: [one for word in _WORD.findall(text) for one in (word, f"{word}()") if one != name]
        for name, text in texts.items()
    }
    own = {name: _MOST_OF_FILES if _OF_FILES in text else len(text) for name, text in texts.items()}
    characters = own
    for _ in range(_DEEPEST):
        # What a macro takes by a name that is made up as it runs: one view of metrics.
        minutes = [count for name, count in characters.items() if name.endswith("_minute")]
        known = characters | {_MADE_UP: max(minutes, default=0)}
        characters = {
            name: own[name] + sum(known.get(one, 0) for one in used) for name, used in named.items()
        }
    return characters


def check_text(text: str) -> None:
    """Raise InputError where the parser might take very long for a text."""
    content = text.encode(errors="replace")
    if len(content) > _MOST_TEXT_BYTES:
        raise _too(_LONG, f"more than {_MOST_TEXT_BYTES:,} bytes")
    depth = signs = 0
    for operator in _operators(text, content):
        if not operator:
            signs = 0
        for sign in operator:
            depth += (sign in "([{") - (sign in ")]}")
            signs = signs + 1 if sign in _SIGNS else 0
            if depth > _MOST_BRACKETS:
                raise _too(_NESTED, f"more than {_MOST_BRACKETS} brackets inside each other")
            if signs > _MOST_SIGNS:
                raise _too(_NESTED, f"more than {_MOST_SIGNS} signs in a row")


def _operators(text: str, content: bytes) -> Iterator[str]:
    """Yield what is neither a word nor a comment; for a word, nothing."""
    tokens = [*duckdb.tokenize(text), (len(content), None)]
    for (start, kind), (end, _) in pairwise(tokens):
        if kind == duckdb.token_type.operator:
            yield "".join(content[start:end].decode(errors="replace").split())
        elif kind != duckdb.token_type.comment:
            yield ""


def check_tree(tree: Tree, known: Mapping[str, Weight]) -> None:
    """Raise InputError where a query becomes too large when it is bound.

    `known` are the weights of tables and views by their names in lower case.
    """
    weighing = _Weighing()
    for statement in tree["statements"]:
        weighing.query(statement["node"], known, 0)


class _Weighing:
    """Counts what is in a query once, as `check_tree` goes through it."""

    def __init__(self) -> None:
        self._named = 0
        self._joins = 0

    def query(self, node: Tree, known: Mapping[str, Weight], depth: int) -> Weight:
        """Return the weight of a query, with what the names around it stand for."""
        if depth > _MOST_DEPTH:
            raise _too(_NESTED, f"queries more than {_MOST_DEPTH} levels deep")
        known, total = self._with_names(node, known, depth)
        # What stands in FROM gives the columns of a star, so it is weighed first.
        source = self._part(node.get("from_table"), known, depth)
        columns = source.columns
        aliases: dict[str, int] = {}
        total += source
        width = 0
        for item in node.get("select_list", ()):
            weight, has_star = self._expression(item, known, depth, aliases)
            total += weight
            width += columns if has_star else 1
            alias = item.get("alias")
            if alias:
                aliases[alias.casefold()] = weight.references
        rest = {
            key: value
            for key, value in node.items()
            if key not in {"from_table", "select_list", "cte_map"}
        }
        weight, _ = self._expression(rest, known, depth, aliases)
        total += weight
        width = max(width, weight.columns)
        _check(total, width)
        return Weight(total.tables, total.references, width, total.view_characters)

    def _with_names(
        self, node: Tree, known: Mapping[str, Weight], depth: int
    ) -> tuple[Mapping[str, Weight], Weight]:
        total = Weight()
        entries = node["cte_map"].get("map", ())
        self._named += len(entries)
        if self._named > _MOST_NAMED:
            raise _too(_LARGE, f"more than {_MOST_NAMED} queries with a name (WITH)")
        for entry in entries:
            name, value = entry["key"].casefold(), entry["value"]
            # Where it uses itself, it is a table.
            inner = {**known, name: _UNKNOWN}
            weight = self.query(value["query_node"], inner, depth + 1)
            total += weight
            if value.get("materialized") == "CTE_MATERIALIZE_ALWAYS":
                weight = Weight(tables=1, columns=weight.columns)
            known = {**known, name: weight}
        return known, total

    def _expression(
        self, tree: Tree, known: Mapping[str, Weight], depth: int, aliases: Mapping[str, int]
    ) -> tuple[Weight, bool]:
        """Return the weight of what stands in SELECT and after FROM, and whether it has a star."""
        total = self._part(tree, known, depth)
        has_star = False
        more = 0
        for node in objects(tree):
            names = node.get("column_names")
            if names:
                more += 1 + aliases.get(names[-1].casefold(), 0)
            has_star |= node.get("class") == "STAR"
        total += Weight(references=more)
        _check(total, 0)
        return total, has_star

    def _part(self, tree: Tree, known: Mapping[str, Weight], depth: int) -> Weight:
        """Add up the tables and queries in a part of a query."""
        total = Weight()
        for node in objects(tree):
            if "cte_map" in node:
                total += self.query(node, known, depth + 1)
            kind = node.get("type")
            if kind == "BASE_TABLE":
                total += known.get(node.get("table_name", "").casefold(), _UNKNOWN)
            elif kind == "TABLE_FUNCTION":
                name = node.get("function", {}).get("function_name", "")
                total += known.get(f"{name.casefold()}()", _UNKNOWN)
            elif kind in {"EXPRESSION_LIST", "COLUMN_DATA"}:
                total += _UNKNOWN
            elif kind == "JOIN":
                self._joins += 1
                if self._joins > _MOST_JOINS:
                    raise _too(_LARGE, f"more than {_MOST_JOINS} joins")
            _check(total, 0)
        return total


def _check(weight: Weight, width: int) -> None:
    written_out = "when every name in it is written out"
    if weight.tables > _MOST_TABLES:
        raise _too(_LARGE, f"more than {_MOST_TABLES:,} tables {written_out}")
    if weight.view_characters > _MOST_VIEW_CHARACTERS:
        raise _too(_LARGE, "large views, such as metric_values, too often")
    if weight.references > _MOST_REFERENCES:
        raise _too(_LARGE, f"more than {_MOST_REFERENCES:,} columns used {written_out}")
    if max(weight.columns, width) > _MOST_COLUMNS:
        raise _too(_LARGE, f"more than {_MOST_COLUMNS:,} columns {written_out}")


def _too(how: str, what: str) -> InputError:
    problem = f"this query is too {how} ({what})"
    return InputError(QUERY_PLACE, problem, "ask a simpler one, or use a copy: framewalk snapshot")
