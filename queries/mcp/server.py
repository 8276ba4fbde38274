"""The tools, and the server that offers them."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import Field

from framewalk.queries.mcp.answers import MOST_ROWS, AnswerError, Asked, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from framewalk.queries.mcp.answers import Answerer

_Last: TypeAlias = Annotated[
    str | None,
    Field(description="The last 30m, 1h, 2d, 1h30m, up to the newest minute that there is"),
]
_Since: TypeAlias = Annotated[
    str | None, Field(description="From this time (UTC), such as 2026-11-02T09:00")
]
_Until: TypeAlias = Annotated[str | None, Field(description="Before this time (UTC)")]
_Namespace: TypeAlias = Annotated[str | None, Field(description="Services of this namespace only")]
_Service: TypeAlias = Annotated[
    str | None, Field(description="About this service only, such as cart.shop")
]
_Limit: TypeAlias = Annotated[int, Field(ge=1, le=MOST_ROWS, description="At most so many rows")]
_FEW: Final = 20
_INSTRUCTIONS: Final = (
    "Metrics of Kubernetes services per minute, from access logs of what they send each other. "
    "Services are called NAME.NAMESPACE, with CLUSTER:: before where there is one. Begin with "
    "time_range and services. Everything is only read; each answer has the SQL that made it, which "
    "the tool sql takes, changed. Times are UTC."
)
# Name, the shipped query behind it, and what it is for.
_LISTS: Final = (
    ("service_map", "service_map", "Who calls whom: how often, how well, how fast."),
    ("services", "services", "Each service with the requests that it answered."),
    (
        "changes",
        "changes",
        "What changed: each service beside itself in the range of the same length before.",
    ),
    ("slowest", "slowest_endpoints", "The endpoints whose requests take longest."),
    ("failing", "errors", "The endpoints with the most failed requests, and their answers."),
    (
        "unknown_peers",
        "unnamed",
        "Addresses that stand for no service, with the traffic of the range's hours.",
    ),
    ("retransmits", "retransmits", "Where TCP packages are sent again."),
)


def make_server(answerer: Answerer) -> MCPServer[Any]:
    """Return a server whose tools ask `answerer`."""
    server: MCPServer[Any] = MCPServer(
        "framewalk",
        title="framewalk",
        instructions=_INSTRUCTIONS,
        version=version("framewalk"),
        log_level="WARNING",
    )
    for name, query, description in _LISTS:
        _add(server, _list_tool(answerer, query), name, description)
    tools = _Tools(answerer)
    _add(server, tools.time_range, "time_range", "From when to when there are metrics.")
    description = "Everything about one service: each metric over the range, with its unit."
    _add(server, tools.service, "service", description)
    description = "Everything about who calls whom, of one pair: each metric over the range."
    _add(server, tools.edge, "edge", description)
    description = "Which metrics there are: name, unit, whose, and definition."
    _add(server, tools.metrics, "metrics", description)
    description = (
        "One SELECT of DuckDB's SQL over the views SCOPE_minute, SCOPE_hour, SCOPE_day, and the "
        "macros SCOPE_between(since, until); SCOPE is service, service_instance, endpoint, or one "
        "of them with _relation. It can read nothing else, and write nothing."
    )
    _add(server, tools.sql, "sql", description)
    return server


def _add(server: MCPServer[Any], function: Callable[..., Any], name: str, description: str) -> None:
    hints = ToolAnnotations(
        read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
    )
    server.add_tool(function, name, description=description, annotations=hints)


def _list_tool(answerer: Answerer, query: str) -> Callable[..., dict[str, Any]]:
    def tool(  # noqa: PLR0913, PLR0917 - a parameter for each of the tool's
        last: _Last = None,
        since: _Since = None,
        until: _Until = None,
        namespace: _Namespace = None,
        service: _Service = None,
        limit: _Limit = _FEW,
    ) -> dict[str, Any]:
        values = {"namespace": namespace, "service": service}
        given = {name: value for name, value in values.items() if value is not None}
        return _answered(answerer, Asked(query, limit, given, last, since, until))

    return tool


class _Tools:
    """The tools that have arguments of their own."""

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer

    def time_range(self) -> dict[str, Any]:
        return _answered(self._answerer, Asked("time_range", 1))

    def service(
        self,
        service: Annotated[str, Field(description="Its name, such as cart.shop")],
        last: _Last = None,
        since: _Since = None,
        until: _Until = None,
    ) -> dict[str, Any]:
        values = {"service": service}
        asked = Asked("service_dashboard", MOST_ROWS, values, last, since, until)
        return _answered(self._answerer, asked)

    def edge(
        self,
        source: Annotated[str, Field(description="The service that calls")],
        dest: Annotated[str, Field(description="The service that is called")],
        last: _Last = None,
        since: _Since = None,
        until: _Until = None,
    ) -> dict[str, Any]:
        values = {"source": source, "dest": dest}
        asked = Asked("edge_dashboard", MOST_ROWS, values, last, since, until)
        return _answered(self._answerer, asked)

    def metrics(
        self,
        name_contains: Annotated[str, Field(description="A part of their names")] = "",
        limit: _Limit = _FEW,
    ) -> dict[str, Any]:
        part = name_contains.replace("'", "''")
        text = (
            "SELECT name, scope, function, unit, definition FROM metrics "  # noqa: S608 - quoted
            f"WHERE contains(name, '{part}') ORDER BY name LIMIT {int(limit) + 1}"
        )
        return _answered(self._answerer, Asked(text, limit))

    def sql(
        self,
        query: Annotated[
            str, Field(max_length=20_000, description="SQL; $since and $until are the range")
        ],
        last: _Last = None,
        since: _Since = None,
        until: _Until = None,
        limit: _Limit = _FEW,
    ) -> dict[str, Any]:
        return _answered(self._answerer, Asked(query, limit, {}, last, since, until))


def _answered(answerer: Answerer, asked: Asked) -> dict[str, Any]:
    try:
        return told(answerer.answer(asked), asked.limit)
    except AnswerError as error:
        raise ToolError(str(error)) from error
