"""`framewalk map`: who calls whom, in a terminal or as a picture."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from framewalk.cli.asking import NamespaceOption, Said, ServiceOption, values_of
from framewalk.cli.console import say, stdout
from framewalk.cli.ranges import FromOption, LastOption, ToOption, Wanted, shown
from framewalk.cli.sources import (
    DEFAULT_STORE,
    Asked,
    CaOption,
    CertificateOption,
    KeyOption,
    ServerOption,
    StoreOption,
    TokenOption,
)
from framewalk.cli.sql import answer_of
from framewalk.queries.drawing import ServiceMap, as_dot, as_mermaid, as_svg, as_text
from framewalk.queries.reading import as_json

if TYPE_CHECKING:
    from framewalk.cli.asking import Query

_QUESTION: Final = "service_map"
# More are no picture any more.
_MOST_EDGES: Final = 300


class Form(StrEnum):
    """What a map is drawn as."""

    TEXT = "text"
    DOT = "dot"
    MERMAID = "mermaid"
    SVG = "svg"
    JSON = "json"


def map(  # noqa: A001 - the name of the command
    context: typer.Context,
    store: StoreOption = DEFAULT_STORE,
    form: Annotated[
        Form,
        typer.Option(
            "--format",
            "-f",
            help="What to draw: lines for a terminal, a graph for Graphviz or Mermaid, a picture, "
            "or services and edges as JSON.",
        ),
    ] = Form.TEXT,
    last: LastOption = None,
    since: FromOption = None,
    until: ToOption = None,
    service: ServiceOption = None,
    namespace: NamespaceOption = None,
    limit: Annotated[
        int,
        typer.Option(
            "--limit", "-n", metavar="EDGES", min=0, help="Draw the busiest so many; 0 is all."
        ),
    ] = _MOST_EDGES,
    server: ServerOption = None,
    token: TokenOption = None,
    tls_ca: CaOption = None,
    tls_certificate: CertificateOption = None,
    tls_key: KeyOption = None,
) -> None:
    """Draw who calls whom: requests per minute, the slowest hundredth, failures.

    Red is an edge of which more than one request in a hundred fails.

    In a terminal: framewalk map --last 1h

    For a document: framewalk map --namespace shop --format mermaid

    A picture: framewalk map --format svg > map.svg

    With Graphviz: framewalk map --format dot | dot -Tpng > map.png
    """
    said = Said(Wanted.read(last, since, until), values_of(service, namespace, ()), limit)
    place = Asked(context, store, server, token, tls_ca, tls_certificate, tls_key)
    found, answer = answer_of(_QUESTION, said, place)
    rows = answer.rows if found.limit is None else answer.rows[: found.limit]
    is_cut = answer.truncated or len(rows) < len(answer.rows)
    if found.range is not None:
        say(str(found.range))
    if is_cut:
        say(f"these are the busiest {len(rows):,} edges; --limit 0 draws all")
    if not rows:
        say("nobody called anybody by HTTP in this time")
    typer.echo(_drawn(form, ServiceMap.of_rows(rows), found, is_cut=is_cut), nl=False)


def _drawn(form: Form, services: ServiceMap, found: Query, *, is_cut: bool) -> str:
    match form:
        case Form.TEXT:
            return as_text(services, ascii_only=stdout.options.ascii_only)
        case Form.DOT:
            return as_dot(services)
        case Form.MERMAID:
            return as_mermaid(services)
        case Form.SVG:
            return as_svg(services)
    content = _content(services, found, is_cut=is_cut)
    return f"{as_json(content, indent=2, ascii_only=stdout.options.ascii_only)}\n"


def _content(services: ServiceMap, found: Query, *, is_cut: bool) -> dict[str, Any]:
    asked = found.range
    times = {} if asked is None else {"from": shown(asked.since), "to": shown(asked.until)}
    edges = [
        {
            "source": edge.source,
            "dest": edge.dest,
            "calls_per_minute": edge.calls_per_minute,
            "success_percent": edge.success_percent,
            "p99_ms": edge.p99_ms,
        }
        for edge in services.edges
    ]
    return {**times, "truncated": is_cut, "services": services.services, "edges": edges}
