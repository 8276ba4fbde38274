"""The reference pages of the definition language, made from its tables.

`python -m framewalk.engine.explain.reference docs/reference` writes them; a test tells when they
are stale.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from framewalk.engine.explain.metric import meaning
from framewalk.engine.oal import ENUMERATIONS, FUNCTIONS, SCOPES, Column, Kind, Source, load_plan
from framewalk.engine.schemas import OPERATIONS, ROLES
from framewalk.engine.views import RESOLUTIONS, view_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from framewalk.engine.oal import Attribute, Metric, MetricFunction, Parameter, Scope, ScopePlan

_MADE: Final = "<!-- Made by `make reference`; change the tables in engine/oal instead. -->\n"
_KINDS: Final = {
    Kind.CONDITION: "a condition",
    Kind.SERVICE_NAME: "an attribute that is the name of a service",
    Kind.STRING: "an attribute that is a string",
    Kind.BOOLEAN: "an attribute that is a boolean",
    Kind.NUMBER: "an attribute that is a number",
}
_OF: Final = {
    Source.ANY: "anything",
    Source.NUMBER: "a number",
    Source.NANOSECONDS: "a number in ns",
}
_FAMILIES: Final = {"": "Several operations", "http": "HTTP"}


def pages() -> dict[str, str]:
    """Return the text of each page by its file name."""
    return {
        "scopes.md": _MADE + _scopes_page(),
        "functions.md": _MADE + _functions_page(),
        "metrics.md": _MADE + _metrics_page(),
    }


def write_pages(folder: Path) -> None:
    """Write the pages into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _code(text: str) -> str:
    return f"`{text}`"


# --- scopes --------------------------------------------------------------------------------


def _scopes_page() -> str:
    head = (
        "# Scopes and attributes\n\n"
        "A definition takes logs from a scope: `from(SCOPE.*)` or `from(SCOPE.attribute)`. Each "
        "entity of a scope has one row per minute, hour and day in the views of that scope.\n\n"
        "An attribute belongs to the operations named with it; on logs of others it is null. "
        "A definition that could never have a value is refused.\n"
    )
    enumerations = "".join(
        f"\n`{name}` is one of {', '.join(_code(f'{name}.{member}') for member in members)}.\n"
        for name, members in ENUMERATIONS.items()
    )
    return head + enumerations + "".join(map(_scope_section, SCOPES.values()))


def _scope_section(scope: Scope) -> str:
    views = ", ".join(_code(view_name(scope, resolution)) for resolution in RESOLUTIONS)
    keys = ", ".join(map(_code, scope.keys))
    rows = [
        (
            _code(attribute.path),
            str(attribute.type),
            attribute.unit,
            _operations(attribute, scope),
            _held(attribute),
        )
        for attribute in scope.attributes.values()
    ]
    return (
        f"\n## {scope.name}\n\n"
        f"- views: {views}\n"
        f"- an entity is named by: {keys}\n"
        f"- made from: {_made_from(scope)}\n\n"
        f"{_table(('attribute', 'type', 'unit', 'operations', 'column'), rows)}"
    )


def _made_from(scope: Scope) -> str:
    every = len(scope.operations) == len(OPERATIONS)
    logs = "every log" if every else f"{', '.join(scope.operations)} logs"
    needs = []
    if scope.roles != ROLES:
        needs.append(f"of role {' or '.join(scope.roles)}")
    if scope.needs_local:
        needs.append("whose local service is known")
    needs += [f"with `{name}`" for name in scope.needs]
    return " ".join([logs, " and ".join(needs)]).strip()


def _operations(attribute: Attribute, scope: Scope) -> str:
    if set(attribute.columns) == set(scope.operations):
        return "all"
    return ", ".join(attribute.columns)


def _held(attribute: Attribute) -> str:
    """Return where the value is: a column of the logs or of the peers, or the value itself."""
    held = dict.fromkeys(attribute.columns.values())
    columns = [_code(one.name) for one in held if isinstance(one, Column)]
    constants = [_code(f'"{one}"') for one in held if isinstance(one, str)]
    if not constants:
        return ", ".join(columns)
    always = "always" if len(constants) == 1 else "by operation:"
    return f"{always} {', '.join(constants)}"


# --- functions -----------------------------------------------------------------------------


def _functions_page() -> str:
    head = (
        "# Functions\n\n"
        "A function keeps a state per entity and minute and makes the value when it is read. "
        "States merge by addition, or by taking the larger or smaller one: so logs may come "
        "late, in any order and in any number of pieces, and hours and days are exact.\n\n"
        "Without a log that counts there is no value: NULL, not 0.\n\n"
    )
    rows = [
        (
            f"[`{function.signature}`](#{function.name.lower()})",
            _OF[function.source],
            function.sql_type,
            function.notes.value,
        )
        for function in _functions()
    ]
    sections = "".join(map(_function_section, _functions()))
    return head + _table(("function", "of", "result", "value"), rows) + sections


def _functions() -> list[MetricFunction]:
    return list({function.name: function for function in FUNCTIONS.values()}.values())


def _function_section(function: MetricFunction) -> str:
    notes = function.notes
    unit = f", unit {function.unit}" if function.unit else ""
    aliases = [name for name in FUNCTIONS if FUNCTIONS[name] is function and name != function.name]
    lines = [
        f"- of: {_OF[function.source]}{', or `*`' if function.source is Source.ANY else ''}",
        *(f"- `{one.name}`: {_parameter(one)}" for one in function.parameters),
        f"- keeps: {notes.keeps} ({function.state_count} per entity and minute)",
        f"- value: {notes.value}",
        f"- NULL where {notes.missing}",
        f"- result: {function.sql_type}{unit}",
    ]
    lines += [f"- also as `{name}`" for name in aliases]
    differs = f"\n{notes.differs}\n" if notes.differs else ""
    return f"\n## {function.name}\n\n`{function.signature}`\n\n" + "\n".join(lines) + f"\n{differs}"


def _parameter(parameter: Parameter) -> str:
    if parameter.kind is Kind.INTEGER:
        words = f"a number from 1 to {parameter.at_most:,}"
    else:
        words = _KINDS[parameter.kind]
    return f"{words}; may be left out" if parameter.optional else words


# --- metrics -------------------------------------------------------------------------------


def _metrics_page() -> str:
    plan = load_plan()
    head = (
        "# Metrics\n\n"
        f"The {len(plan.metrics)} metrics that framewalk ships, each a column of the views of its "
        "scope. `framewalk oal explain METRIC` tells how one is computed.\n"
    )
    return head + "".join(map(_metrics_of_scope, plan.scopes))


def _metrics_of_scope(scope: ScopePlan) -> str:
    families: defaultdict[str, list[Metric]] = defaultdict(list)
    for metric in scope.metrics:
        families[metric.family].append(metric)
    views = ", ".join(_code(view_name(scope.scope, resolution)) for resolution in RESOLUTIONS)
    sections = "".join(_family(name, families) for name in sorted(families))
    return f"\n## {scope.scope.name}\n\nViews: {views}.\n{sections}"


def _family(name: str, families: Mapping[str, Sequence[Metric]]) -> str:
    rows = [
        (_code(metric.name), metric.unit, metric.function.sql_type.split("(")[0], meaning(metric))
        for metric in families[name]
    ]
    title = _FAMILIES.get(name, name.capitalize())
    return f"\n### {title}\n\n{_table(('metric', 'unit', 'type', 'meaning'), rows)}"


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
