"""A statement with narrow selections where the views and macros of metrics stand in it.

What is around them stays as it is written. A statement of which it is not sure what it reads is
left alone, and one that does not run as it is narrowed is run as it was.
"""

from __future__ import annotations

import contextlib
import re
from functools import partial
from typing import TYPE_CHECKING, Final

import duckdb

from framewalk.engine.oal import PERCENTILES, SCOPES
from framewalk.engine.views import BUCKET, RESOLUTIONS, quoted, view_name
from framewalk.queries.narrowing.calls import call_of
from framewalk.queries.narrowing.macros import stored_macros
from framewalk.queries.narrowing.references import equal_to, references, text_of
from framewalk.queries.narrowing.rows import percentiles_of_range, rows_of_range, rows_of_view
from framewalk.queries.narrowing.values import metrics_by_scope, values_of_metrics
from framewalk.queries.reading import Readable, begin_again, read_tree, serialized

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from framewalk.queries.narrowing.calls import Argument
    from framewalk.queries.narrowing.macros import Macros
    from framewalk.queries.narrowing.references import Reference
    from framewalk.queries.reading import Checked, Tree

_VALUES: Final = "metric_values"
_VALUES_OF: Final = "metric_values_of()"
_OF_METRIC: Final = "of_metric"
_OF_PERCENTILES: Final = frozenset({"entity_id", *(f"p{one}" for one in PERCENTILES)})
_VIEWS: Final = {
    view_name(scope, resolution): (scope.view, resolution.name)
    for scope in SCOPES.values()
    for resolution in RESOLUTIONS
}
_RANGES: Final = {f"{scope.view}_between()": scope.view for scope in SCOPES.values()}
_PERCENTILES: Final = {
    f"{scope.view}_percentiles_between()": scope.view for scope in SCOPES.values()
}
_NAMES: Final = frozenset({*_VIEWS, *_RANGES, *_PERCENTILES, _VALUES, _VALUES_OF})
# To take a macro apart takes longer than to bind it once: of a few queries this alone is worth it.
_WORTH_IT_ONCE: Final = frozenset({_VALUES})
_OF_VALUES: Final = ("of_metric", "since", "until", "of_entity", "resolution")


def readable(connection: duckdb.DuckDBPyConnection, checked: Checked) -> Readable:
    """Return a statement that was found harmless as one to run."""
    with _left_alone(connection):
        narrow = narrowed_text(connection, checked.query, checked.tree)
        if narrow is not None:
            (statement,) = connection.extract_statements(checked.before + narrow)
            return Readable(checked.statement, statement)
    return Readable(checked.statement)


def readable_text(connection: duckdb.DuckDBPyConnection, text: str) -> Readable | None:
    """Return a text as a statement to run, as a process does that runs few.

    None where there is nothing to narrow: it may be no query, or several.
    """
    if not any(name in text.casefold() for name in _WORTH_IT_ONCE):
        return None
    with _left_alone(connection):
        statements = connection.extract_statements(text)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            return None
        query = statements[0].query
        tree = serialized(connection, query)
        if tree is None:
            return None
        narrow = narrowed_text(connection, query, read_tree(tree), _WORTH_IT_ONCE)
        if narrow is not None:
            return Readable(statements[0], connection.extract_statements(narrow)[0])
    return None


@contextlib.contextmanager
def _left_alone(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Leave a statement as it is where DuckDB finds fault: it will be about what was asked."""
    try:
        yield
    except (duckdb.InterruptException, duckdb.OutOfMemoryException):
        raise
    except duckdb.Error:
        begin_again(connection)


def narrowed_text(
    connection: duckdb.DuckDBPyConnection,
    text: str,
    tree: Tree,
    names: AbstractSet[str] = _NAMES,
) -> str | None:
    """Return a query with the same rows, narrowed; None where there is nothing to narrow.

    `tree` is DuckDB's of the text; `names` are the views and macros that may be narrowed. Raises
    duckdb.Error.
    """
    found = references(tree, names)
    macros = stored_macros(connection) if found else None
    if macros is None:
        return None
    content = text.encode()
    pieces = []
    for reference in found:
        piece = _Narrowing(macros, content, reference).piece()
        if piece is not None:
            pieces.append(piece)
    if not pieces:
        return None
    for begin, end, sql in sorted(pieces, reverse=True):
        content = content[:begin] + sql.encode() + content[end:]
    return content.decode()


class _Narrowing:
    """Narrows one view or macro where it stands in a text."""

    def __init__(self, macros: Macros, content: bytes, reference: Reference) -> None:
        self._macros = macros
        self._content = content
        self._reference = reference

    def piece(self) -> tuple[int, int, str] | None:
        """Return from which byte to before which another text is to stand, and it."""
        reference = self._reference
        name = reference.name.removesuffix("()")
        # What is not written out, as in a summary, is nowhere.
        begin = min(reference.node.get("query_location", 0), len(self._content))
        written = re.compile(rf'(?:"?main"?\s*\.\s*)?"?{name}"?(?!\w)'.encode(), re.IGNORECASE)
        match = written.match(self._content, begin)
        if match is None:
            return None
        end = match.end()
        selection: Callable[[], str | None]
        if name == _VALUES:
            selection = self._values
        elif name in _VIEWS:
            selection = self._view
        else:
            parameters = self._macros.parameters(name) if name in self._macros else _OF_VALUES
            call = call_of(reference.node, self._content[end:], parameters)
            if call is None or self._content[end:].lstrip()[:1] != b"(":
                return None
            end += call.length
            selection = partial(self._called, call.arguments)
        sql = selection()
        if sql is None:
            return None
        alias = "" if reference.node.get("alias") else f" AS {quoted(name)}"
        return begin, end, f"({sql}){alias}"

    def _wanted(self, macro: str, *more: str) -> set[str] | None:
        """Return the columns of a macro that are meant; None if it is not there, or all are."""
        said = self._reference.columns
        if said is None or macro not in self._macros:
            return None
        columns = [*self._macros.columns(macro), *more]
        wanted = {name for name in columns if name.casefold() in said}
        return wanted if len(wanted) < len(columns) else None

    def _view(self) -> str | None:
        scope, resolution = _VIEWS[self._reference.name]
        wanted = self._wanted(f"{scope}_metrics", "minutes")
        if wanted is None:
            return None
        return rows_of_view(self._macros, scope, resolution, wanted)

    def _called(self, arguments: Mapping[str, Argument]) -> str | None:
        name = self._reference.name
        given = {parameter: one.sql for parameter, one in arguments.items()}
        if name in _RANGES:
            scope = _RANGES[name]
            wanted = self._wanted(f"{scope}_between")
            if wanted is None:
                return None
            return rows_of_range(self._macros, scope, wanted, given)
        metric = text_of(arguments[_OF_METRIC].node)
        if metric is None:
            return None
        if name == _VALUES_OF:
            return self._values_of(metric, arguments)
        return self._percentiles(metric, given)

    def _percentiles(self, metric: str, given: Mapping[str, str]) -> str | None:
        scope = _PERCENTILES[self._reference.name]
        said = self._reference.columns
        wanted = _OF_PERCENTILES if said is None else _OF_PERCENTILES & said
        return percentiles_of_range(self._macros, scope, wanted, metric, given)

    def _values_of(self, metric: str, arguments: Mapping[str, Argument]) -> str | None:
        """Narrow the macro of one metric, where its resolution is known."""
        node = arguments["resolution"].node
        resolution = text_of(node) if node else RESOLUTIONS[0].name
        is_known = resolution in {one.name for one in RESOLUTIONS}
        found = metrics_by_scope(self._macros, {metric})
        if resolution is None or not is_known or not found:
            return None
        rows = values_of_metrics(self._macros, found, {resolution})
        since, until, entity = (arguments[name].sql for name in ("since", "until", "of_entity"))
        return (
            f"SELECT {BUCKET}, entity_id, entity, label, value FROM ({rows}) "  # noqa: S608
            f"WHERE {BUCKET} >= {since}::TIMESTAMP AND {BUCKET} < {until}::TIMESTAMP "
            f"AND ({entity} IS NULL OR entity = {entity})"
        )

    def _values(self) -> str | None:
        metrics, resolutions, scopes = (
            equal_to(self._reference, column) for column in ("metric", "resolution", "scope")
        )
        if metrics is None:
            return None
        found = metrics_by_scope(self._macros, metrics)
        if found is None:
            return None
        own = {scope: of for scope, of in found.items() if scopes is None or scope in scopes}
        return values_of_metrics(self._macros, own, resolutions)
