"""What a client wants of whole values: functions that are made once for each selection."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from graphql import GraphQLList, GraphQLNonNull

from framewalk.queries.graphql.answers import Columns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from graphql import GraphQLOutputType


class Taken(NamedTuple):
    """What is taken for a name in the answer: a field, as a shape makes it, or a constant."""

    field: str
    shape: Callable[[Any], Any] | None = None
    constant: str | None = None


class Shape:
    """Takes what is wanted of an object, or of many that are columns."""

    def __init__(self, fields: Mapping[str, Taken]) -> None:
        self._fields = fields
        self._responses = tuple(fields)
        # The most of them are plain, and then are all taken at once.
        is_plain = all(one.shape is None and one.constant is None for one in fields.values())
        names = [one.field for one in fields.values()]
        self._plain = itemgetter(*names) if is_plain and len(names) > 1 else None

    def __call__(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is wanted of an object."""
        if self._plain is not None:
            return dict(zip(self._responses, self._plain(value), strict=True))
        return {
            response: value[one.field]
            if one.shape is None and one.constant is None
            else _made(one, value)
            for response, one in self._fields.items()
        }

    def of_columns(self, columns: Columns) -> list[dict[str, Any]]:
        """Return what is wanted of each object."""
        values, responses = columns.values, self._responses
        length = len(next(iter(values.values())))
        wanted = [_column(one, values, length) for one in self._fields.values()]
        return [dict(zip(responses, row, strict=True)) for row in zip(*wanted, strict=True)]


def _made(one: Taken, value: Mapping[str, Any]) -> Any:  # noqa: ANN401 - whatever the schema says
    if one.constant is not None or one.shape is None:
        return one.constant
    return one.shape(value[one.field])


def _column(one: Taken, values: Mapping[str, list[Any]], length: int) -> list[Any]:
    if one.constant is not None:
        return [one.constant] * length
    column = values[one.field]
    return column if one.shape is None else list(map(one.shape, column))


def listed(kind: GraphQLOutputType, shape: Shape) -> Callable[[Any], Any]:
    """Return a function for a field of a type: for null, and for each of a list."""
    if isinstance(kind, GraphQLNonNull):
        kind = kind.of_type
    if not isinstance(kind, GraphQLList):
        return lambda value: None if value is None else shape(value)
    each = listed(kind.of_type, shape)

    def of_list(value: Any) -> Any:  # noqa: ANN401 - a list, columns or null
        if value is None:
            return None
        if isinstance(value, Columns):
            return shape.of_columns(value)
        return [each(one) for one in value]

    return of_list
