"""A document is answered: each field at its top by its resolver, all below in one step.

Resolvers give plain values in the shape of the schema, whole; what a client wants of them is taken
with a function that is made once for each selection. All expressions of a document are evaluated
together, before anything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from graphql import (
    GraphQLError,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    get_named_type,
)
from graphql.execution import Executor
from graphql.execution.execute import assume_not_async_iterable, assume_not_awaitable
from graphql.execution.values import get_argument_values

from framewalk.queries.graphql.answers import RESOLVERS
from framewalk.queries.graphql.documents import schema
from framewalk.queries.graphql.shapes import Shape, Taken, listed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from graphql import GraphQLInputType, GraphQLOutputType, GraphQLResolveInfo

    from framewalk.queries.graphql.answers import Asked
    from framewalk.queries.graphql.documents import Document

EXPRESSION_FIELD: Final = "execExpression"

_TYPENAME: Final = "__typename"


class Answering(Executor[Any]):
    """Executes a document; `context_value` is an Asked, and `answered` the document."""

    answered: Document

    def execute_fields(
        self,
        parent_type: GraphQLObjectType,
        source_value: Any,  # noqa: ANN401 - as graphql-core has it
        path: Any,  # noqa: ANN401
        grouped_field_set: Any,  # noqa: ANN401
        position_context: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Evaluate the expressions among the fields at the top first."""
        if path is None:
            asked: Asked = self.context_value
            asked.evaluate(self._expressions(parent_type, grouped_field_set))
        return super().execute_fields(
            parent_type, source_value, path, grouped_field_set, position_context
        )

    def _expressions(self, parent_type: GraphQLObjectType, grouped: Any) -> dict[int, Any]:  # noqa: ANN401
        """Return the arguments of all expressions, by the identity of their first nodes."""
        found = {}
        for details in grouped.values():
            node = details[0].node
            if node.name.value != EXPRESSION_FIELD:
                continue
            field = parent_type.fields[EXPRESSION_FIELD]
            try:
                arguments = get_argument_values(field, node, self.variable_values)
                check_arguments(field.args, arguments)
            except GraphQLError:
                # It is raised again where the field is executed.
                continue
            found[id(node)] = arguments
        return found

    def execute_field(
        self,
        parent_type: GraphQLObjectType,
        source: Any,  # noqa: ANN401 - as graphql-core has it
        field_details_list: Any,  # noqa: ANN401
        path: Any,  # noqa: ANN401
        position_context: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Take what is wanted of an expression's result; all else goes the usual way."""
        asked: Asked = self.context_value
        node = field_details_list[0].node
        found = asked.result(id(node))
        if found is None:
            return super().execute_field(
                parent_type, source, field_details_list, path, position_context
            )
        return self._taken(parent_type.fields[EXPRESSION_FIELD].type, field_details_list)(found)

    def complete_value(  # noqa: PLR0913, PLR0917 - as graphql-core has it
        self,
        return_type: GraphQLOutputType,
        field_details_list: Any,  # noqa: ANN401 - as graphql-core has it
        info: Any,  # noqa: ANN401
        path: Any,  # noqa: ANN401
        result: Any,  # noqa: ANN401
        position_context: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Take what is wanted of a whole value in one step; introspection goes the usual way."""
        named = get_named_type(return_type)
        if named.name.startswith("__") or info.parent_type.name.startswith("__"):
            return super().complete_value(
                return_type, field_details_list, info, path, result, position_context
            )
        if isinstance(result, Exception):
            raise result
        if isinstance(named, GraphQLObjectType):
            return self._taken(return_type, field_details_list)(result)
        return result

    def _taken(self, kind: GraphQLOutputType, details: Any) -> Callable[[Any], Any]:  # noqa: ANN401
        """Return the function that takes what a field of the top wants."""
        known, node = self.answered.shapes, id(details[0].node)
        if len(details) > 1 or self.answered.has_directives:
            return listed(kind, self._shape(get_named_type(kind), details))
        if node not in known:
            known[node] = listed(kind, self._shape(get_named_type(kind), details))
        return known[node]

    def _shape(self, kind: Any, details: Any) -> Shape:  # noqa: ANN401
        """Return what takes what a selection wants of an object."""
        grouped = self.collect_subfields(kind, details).grouped_field_set
        fields: dict[str, Taken] = {}
        for response_name, one in grouped.items():
            name = one[0].node.name.value
            if name == _TYPENAME:
                fields[response_name] = Taken(name, constant=kind.name)
                continue
            named = get_named_type(kind.fields[name].type)
            shape = None
            if isinstance(named, GraphQLObjectType):
                shape = listed(kind.fields[name].type, self._shape(named, one))
            fields[response_name] = Taken(name, shape)
        return Shape(fields)


def check_arguments(declared: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Raise GraphQLError where a variable of another type stands for an argument.

    Large documents are not searched for that before.
    """
    for name, value in arguments.items():
        argument = declared[name]
        if not _fits(argument.type, value):
            message = f"Argument '{name}' is no {argument.type}."
            raise GraphQLError(message)


def _fits(kind: GraphQLInputType, value: Any) -> bool:  # noqa: ANN401 - whatever was sent
    match kind:
        case GraphQLNonNull():
            return value is not None and _fits(kind.of_type, value)
        case _ if value is None:
            return True
        case GraphQLList():
            return isinstance(value, list) and all(_fits(kind.of_type, one) for one in value)
        case GraphQLInputObjectType():
            return isinstance(value, dict) and all(
                name in kind.fields and _fits(kind.fields[name].type, one)
                for name, one in value.items()
            )
    python = _PYTHON_TYPES.get(kind.name, str)
    return isinstance(value, python) and (python is bool or not isinstance(value, bool))


_PYTHON_TYPES: Final[Mapping[str, type]] = {"Boolean": bool, "Int": int, "Long": int}


class Done(NamedTuple):
    """What came of a document; if it was not executed, the errors are those of the request."""

    data: dict[str, Any] | None
    errors: list[GraphQLError]
    is_executed: bool


def execute(
    document: Document, variables: dict[str, Any], operation: str | None, asked: Asked
) -> Done:
    """Answer a document. Whatever is no GraphQLError is raised, such as duckdb.Error."""
    built = Answering.build(
        schema(),
        document.node,
        context_value=asked,
        raw_variable_values=variables,
        operation_name=operation,
        field_resolver=_resolve if document.is_checked else _checked,
        is_awaitable=assume_not_awaitable,
        is_async_iterable=assume_not_async_iterable,
    )
    if isinstance(built, list):
        return Done(None, built, is_executed=False)
    assert isinstance(built, Answering)  # noqa: S101 - tells the type
    built.answered = document
    result: Any = built.execute_operation()
    errors = list(result.errors or ())
    for error in errors:
        if error.original_error is not None and not isinstance(error.original_error, GraphQLError):
            raise error.original_error
    return Done(result.data, errors, is_executed=True)


def _resolve(_source: object, info: GraphQLResolveInfo[Any], **arguments: Any) -> Any:  # noqa: ANN401
    asked: Asked = info.context
    if info.field_name == EXPRESSION_FIELD:
        return asked.expression(id(info.field_nodes[0]))
    return RESOLVERS[info.field_name](asked, **arguments)


def _checked(source: object, info: GraphQLResolveInfo[Any], **arguments: Any) -> Any:  # noqa: ANN401
    check_arguments(info.parent_type.fields[info.field_name].args, arguments)
    return _resolve(source, info, **arguments)
