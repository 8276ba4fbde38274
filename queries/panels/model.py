"""A page of panels, as its file has it (dashboards.md, section 9).

Unknown fields are kept: what is written back has what was read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

if TYPE_CHECKING:
    from collections.abc import Iterator

_SETTINGS: Final = ConfigDict(
    extra="allow", frozen=True, alias_generator=to_camel, populate_by_name=True
)

# null stands for nothing, as in what UIs export.
_Texts = Annotated[tuple[str, ...], BeforeValidator(lambda value: () if value is None else value)]


class Title(BaseModel):
    """What stands over a widget."""

    model_config = _SETTINGS

    title: str | None = None
    name: str | None = None


class Graph(BaseModel):
    """How a widget shows its values."""

    model_config = _SETTINGS

    type: str | None = None
    dashboard_name: str | None = None


class Tab(BaseModel):
    """One of several groups of widgets; it is hidden where its expression gives 0."""

    model_config = _SETTINGS

    name: str = ""
    children: tuple[Widget, ...] = ()
    expression: str | None = None


class Legend(BaseModel):
    """When a node of a map is not well."""

    model_config = _SETTINGS

    expression: str | None = None


class Widget(BaseModel):
    """A part of a page: where it stands in 24 columns, what it shows and how."""

    model_config = _SETTINGS

    x: float = 0
    y: float = 0
    w: float = Field(default=1, gt=0)
    h: float = Field(default=1, gt=0)
    type: str
    expressions: _Texts = ()
    sub_expressions: _Texts = ()
    node_expressions: _Texts = ()
    link_server_expressions: _Texts = ()
    link_client_expressions: _Texts = ()
    legend_mqe: Legend | None = Field(default=None, alias="legendMQE")
    graph: Graph | None = None
    widget: Title | None = None
    value_related_dashboard: str | None = None
    link_dashboard: str | None = None
    node_dashboard: tuple[dict[str, Any], ...] | str | None = None
    children: tuple[Tab, ...] | None = None

    @property
    def title(self) -> str:
        """Return what a person calls it."""
        shown = self.widget and (self.widget.title or self.widget.name)
        return shown or f"{self.kind} at {self.x:g},{self.y:g}"

    @property
    def kind(self) -> str:
        """Return how it shows values, or what it is if it shows none."""
        return (self.graph and self.graph.type) or self.type

    def every_expression(self) -> Iterator[str]:
        """Yield the expressions of this widget, without those of widgets in it."""
        yield from self.expressions
        yield from self.sub_expressions
        yield from self.node_expressions
        yield from self.link_server_expressions
        yield from self.link_client_expressions
        if self.legend_mqe is not None and self.legend_mqe.expression:
            yield self.legend_mqe.expression

    def links(self) -> Iterator[str]:
        """Yield the names of pages that it leads to."""
        nodes = self.node_dashboard or ()
        named = [nodes] if isinstance(nodes, str) else [str(one.get("dashboard")) for one in nodes]
        graph = self.graph.dashboard_name if self.graph is not None else None
        linked = (graph, self.value_related_dashboard, self.link_dashboard, *named)
        yield from (name for name in linked if name and name != "None")


Entity = Literal[
    "All",
    "Service",
    "ServiceInstance",
    "Endpoint",
    "Process",
    "ServiceRelation",
    "ServiceInstanceRelation",
    "EndpointRelation",
    "ProcessRelation",
]


class Page(BaseModel):
    """A page of one kind of entity in one layer; these three are together unique."""

    model_config = _SETTINGS

    layer: str
    entity: Entity
    name: str
    is_root: bool = False
    is_default: bool = False
    path: str | None = None
    expressions: _Texts = ()
    children: tuple[Widget, ...] = ()

    def widgets(self) -> Iterator[Widget]:
        """Yield all widgets, also those in tabs, as they stand in the file."""
        yield from _within(self.children)


def _within(widgets: tuple[Widget, ...]) -> Iterator[Widget]:
    for widget in widgets:
        yield widget
        for tab in widget.children or ():
            yield from _within(tab.children)
