"""What is wrong in pages that could be read: expressions, metrics, kinds, links."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from framewalk.engine.oal import did_you_mean
from framewalk.queries.metrics import Catalogue
from framewalk.queries.mqe import ExpressionError, metric_names, parse
from framewalk.queries.panels.files import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from framewalk.queries.panels.files import Found
    from framewalk.queries.panels.model import Widget

_SHOWN: Final = frozenset(
    {
        "Area",
        "Bar",
        "Card",
        "EndpointList",
        "HeatMap",
        "InstanceList",
        "Line",
        "ServiceList",
        "Tab",
        "Table",
        "Text",
        "TimeRange",
        "TopList",
        "Topology",
    }
)
# Known, and measured by others.
_ELSEWHERE: Final = Catalogue.made_of(()).metrics
# A widget without one shows nothing.
_ASKING: Final = _SHOWN - {"Tab", "Text", "TimeRange", "Topology"}


def check_pages(pages: Sequence[Found], metrics: Collection[str]) -> Iterator[Finding]:
    """Yield what is wrong with pages, given the names of all metrics, file by file."""
    names = {one.page.name for one in pages}
    for found in pages:
        for widget in found.page.widgets():
            yield from _of_kind(found, widget)
            for expression in widget.every_expression():
                yield from _of_expression(found, widget, expression, metrics)
            for link in widget.links():
                if link not in names:
                    problem = f"it leads to {link!r}, and there is no such page here"
                    remedy = did_you_mean(link, names) or "add the page, or mend the name"
                    yield _warning(found, widget, problem, remedy)


def _of_kind(found: Found, widget: Widget) -> Iterator[Finding]:
    kind = widget.kind
    if kind not in _SHOWN:
        problem = f"{kind} is about what framewalk does not keep"
        yield _warning(found, widget, problem, "it stays empty")
    elif kind in _ASKING and not widget.expressions:
        yield _warning(found, widget, f"this {kind} has no expression", "it stays empty")


def _of_expression(
    found: Found, widget: Widget, expression: str, metrics: Collection[str]
) -> Iterator[Finding]:
    try:
        tree = parse(expression)
    except ExpressionError as error:
        place = f"{widget.title!r}, {expression}"
        yield Finding(found.path, place, str(error), "mend the expression")
        return
    for name in sorted(metric_names(tree) - set(metrics)):
        if name in _ELSEWHERE:
            problem = f"{name} comes from elsewhere than Rover's logs"
            yield _warning(found, widget, problem, "it stays empty")
        else:
            remedy = did_you_mean(name, metrics) or "`framewalk oal explain` lists all"
            yield _warning(found, widget, f"there is no metric {name}", remedy)


def _warning(found: Found, widget: Widget, problem: str, remedy: str) -> Finding:
    return Finding(found.path, repr(widget.title), problem, remedy, Severity.WARNING)
