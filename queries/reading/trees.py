"""DuckDB's tree of a query, as Python values, however deep it is."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

# A value of the tree: objects are dicts, and numbers that are not whole are None.
Tree: TypeAlias = Any

_NOT_WRITTEN_OUT: Final = re.compile(r'\{\s*"error"\s*:\s*true')
_TRUTHS: Final = {"true": True, "false": False}
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[][{}]|[^][{}",:\s]+')


def serialized(connection: duckdb.DuckDBPyConnection, text: str) -> str | None:
    """Return DuckDB's tree of a query, as JSON; None where it has none. Raises duckdb.Error."""
    serialize = "SELECT json_serialize_sql(?, skip_null := true, skip_empty := true)"
    (tree,) = connection.execute(serialize, [text]).fetchall()[0]
    return None if _NOT_WRITTEN_OUT.match(tree) else str(tree)


def read_tree(text: str) -> Tree:
    """Read JSON of DuckDB's serializer.

    A sum of 800 terms is deeper than a parser of JSON goes, so nothing here calls itself.
    """
    root: list[Tree] = []
    stack: list[Tree] = [root]
    keys: list[str | None] = [None]
    for match in _TOKEN.finditer(text):
        piece = match[0]
        if piece in "]}":
            stack.pop()
            keys.pop()
            continue
        holder = stack[-1]
        if piece[0] == '"' and type(holder) is dict and keys[-1] is None:
            keys[-1] = json.loads(piece)
            continue
        value = _value(piece)
        if type(holder) is dict:
            holder[keys[-1]] = value
            keys[-1] = None
        else:
            holder.append(value)
        if piece in "[{":
            stack.append(value)
            keys.append(None)
    return root[0]


def _value(piece: str) -> Tree:
    if piece == "{":
        return {}
    if piece == "[":
        return []
    if piece[0] == '"':
        return json.loads(piece)
    return int(piece) if piece.isdecimal() else _TRUTHS.get(piece)


def objects(tree: Tree) -> Iterator[dict[str, Tree]]:
    """Yield the objects of a tree, outer before inner and in order; not those inside a query.

    A query is an object with a `cte_map`; it is yielded, unless the tree itself is one.
    """
    stack = [tree]
    while stack:
        node = stack.pop()
        if type(node) is list:
            stack.extend(reversed(node))
        if type(node) is not dict:
            continue
        yield node
        if "cte_map" not in node or node is tree:
            stack.extend(reversed(node.values()))


def all_objects(tree: Tree) -> Iterator[dict[str, Tree]]:
    """Yield every object of a tree, those inside queries too."""
    stack = [tree]
    while stack:
        node = stack.pop()
        if type(node) is list:
            stack.extend(node)
        if type(node) is dict:
            yield node
            stack.extend(node.values())
