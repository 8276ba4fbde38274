"""What a statement reads of views and macros, and which of their columns it can mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from framewalk.queries.reading import all_objects, objects

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

    from framewalk.queries.reading import Tree

_SCHEMA: Final = "main"
# With anything else about it (a sample, other names of columns) a table is left as it is.
_OF_TABLE: Final = frozenset(
    {
        "type",
        "alias",
        "query_location",
        "query_location_length",
        "table_name",
        "schema_name",
        "qualified_name",
        "function",
        "with_ordinality",
    }
)
# These mean columns by something else than their names.
_NAMELESS: Final = frozenset({"POSITIONAL_REFERENCE", "PARAMETER"})
_NATURAL: Final = "NATURAL"
_NOWHERE: Final = 2**64 - 1


class Reference(NamedTuple):
    """A view or macro where one stands in FROM: its name in lower case, its tree, and its query.

    `columns` are the names, in lower case, of which some are its columns; None are all.
    """

    name: str
    node: Tree
    query: Tree
    columns: frozenset[str] | None

    @property
    def alias(self) -> str:
        """The name that it has in its query, in lower case."""
        return _alias(self.name, self.node)


def references(tree: Tree, names: AbstractSet[str]) -> list[Reference]:
    """Return where a statement reads what is called so; none where it is not sure.

    A column is wanted if its name stands anywhere, whatever is meant there. All are wanted where
    there is a star, or the name of the table in place of a column.
    """
    every = list(all_objects(tree))
    if any(node.get("class") in _NAMELESS for node in every):
        return []
    said = frozenset(
        name.casefold()
        for node in every
        for part in ("column_names", "using_columns")
        for name in node.get(part, ())
    )
    whole = {node["column_names"][-1].casefold() for node in every if node.get("column_names")} | {
        node.get("relation_name", "").casefold() for node in every if node.get("class") == "STAR"
    }
    hidden = _common_table_expressions(every)
    found = []
    for query in every:
        if query.get("type") != "SELECT_NODE" or "from_table" not in query or "sample" in query:
            continue
        tables = list(_tables(query["from_table"]))
        has_all = _has_star(query) or _is_natural(query["from_table"])
        for node in tables:
            name = _known_name(node, names, hidden)
            if name is not None:
                is_whole = has_all or _alias(name, node) in whole
                found.append(Reference(name, node, query, None if is_whole else said))
    return found


def _alias(name: str, node: Tree) -> str:
    alias: str = node.get("alias") or name
    return alias.casefold()


def _common_table_expressions(every: list[Tree]) -> set[str]:
    maps = (node["cte_map"] for node in every if "cte_map" in node)
    return {entry["key"].casefold() for one in maps for entry in one.get("map", ())}


def _known_name(node: Tree, names: AbstractSet[str], hidden: AbstractSet[str]) -> str | None:
    """Return what a table is called, if it is one of those that are looked for."""
    of_function = node.get("function") or {}
    path = (of_function or node).get("qualified_name", {}).get("path", ())
    if not path or any(part.casefold() != _SCHEMA for part in path[:-1]) or len(path) > 2:  # noqa: PLR2004 - schema and name
        return None
    name: str = path[-1].casefold()
    is_plain = node.keys() <= _OF_TABLE and (
        not of_function or node.get("with_ordinality") == "WITHOUT_ORDINALITY"
    )
    if name in hidden or not is_plain:
        return None
    name = f"{name}()" if of_function else name
    return name if name in names else None


def _tables(source: Tree) -> Iterator[Tree]:
    """Yield the tables and functions of a FROM, none of queries inside of it."""
    stack = [source]
    while stack:
        node = stack.pop()
        if node.get("type") == "JOIN":
            stack += [node["left"], node["right"]]
        elif node.get("type") in {"BASE_TABLE", "TABLE_FUNCTION"}:
            yield node


def _is_natural(source: Tree) -> bool:
    return any(node.get("ref_type") == _NATURAL for node in objects(source))


def _has_star(query: Tree) -> bool:
    own = {key: value for key, value in query.items() if key not in {"cte_map", "modifiers"}}
    stars = (node for node in objects(own) if node.get("class") == "STAR")
    orders = (node for node in objects(query.get("modifiers", [])) if node.get("class") == "STAR")
    # ORDER BY ALL is a star, too, of what is selected; it has no place in the text.
    return any(stars) or any(node.get("query_location") != _NOWHERE for node in orders)


def equal_to(reference: Reference, column: str) -> frozenset[str] | None:
    """Return the texts of which a column of a table must be one by WHERE; None if it may be any.

    With an outer join it may be any, as other tables may have a column of this name.
    """
    for node in objects(reference.query["from_table"]):
        if node.get("type") == "JOIN" and not (
            node.get("join_type") == "INNER" and node.get("ref_type") in {"REGULAR", "CROSS"}
        ):
            return None
    found: frozenset[str] | None = None
    for condition in _conditions(reference.query.get("where_clause")):
        texts = _texts_of(condition, reference.alias, column)
        if texts is not None:
            found = texts if found is None else found & texts
    return found


def _conditions(where: Tree) -> Iterator[Tree]:
    """Yield what must all be true."""
    stack = [where] if where else []
    while stack:
        node = stack.pop()
        if node.get("type") == "CONJUNCTION_AND":
            stack += node["children"]
        else:
            yield node


def _texts_of(condition: Tree, alias: str, column: str) -> frozenset[str] | None:
    kind = condition.get("type")
    if kind == "COMPARE_EQUAL":
        sides = [condition["left"], condition["right"]]
        if sides[1].get("column_names"):
            sides.reverse()
    elif kind == "COMPARE_IN":
        sides = condition["children"]
    else:
        return None
    names = [name.casefold() for name in sides[0].get("column_names", ())]
    if names not in ([column], [alias, column]):
        return None
    texts = [text_of(side) for side in sides[1:]]
    return None if None in texts else frozenset(text for text in texts if text is not None)


def text_of(expression: Tree) -> str | None:
    """Return the text that a constant is; None for whatever else."""
    literal = expression.get("literal") or {}
    if expression.get("class") != "CONSTANT" or literal.get("kind") != "STRING":
        return None
    # What is empty is left out of the tree.
    text: str = literal.get("text", "")
    return text
