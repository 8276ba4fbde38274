"""Apdex thresholds T per service, from a YAML file (analysis.md, section 4).

The file is the one that the ecosystem has: a flat mapping of service names to milliseconds, in
which `default` is for all services that it does not name.

    default: 500
    reviews.shop: 200
    mesh::payments.shop: 1000
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import yaml

from framewalk.engine.errors import InputError
from framewalk.engine.schemas import DEFAULT_APDEX_THRESHOLD_MS, SERVICE_LENGTH

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULT_KEY: Final = "default"
_LARGEST_MS: Final = 2**31 - 1
_WHOLE_NUMBER: Final = re.compile(r"[0-9]{1,10}")
_EXAMPLE: Final = "write lines such as `default: 500` and `reviews.shop: 200`"


@dataclass(frozen=True, slots=True)
class ApdexThresholds:
    """T in ms: `per_service_ms` by the service's name, `default_ms` for all others."""

    default_ms: int = DEFAULT_APDEX_THRESHOLD_MS
    per_service_ms: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


def read_apdex_thresholds(path: str | Path) -> ApdexThresholds:
    """Read thresholds from a YAML file.

    Raises:
        InputError: the file cannot be read or holds something else; it names the line.
    """
    given: dict[str, int] = {}
    lines: dict[str, int] = {}
    for name_node, value_node in _entries(Path(path)):
        place = _at(path, name_node.start_mark.line + 1)
        name = _name(name_node, place)
        if name in given:
            raise InputError(
                place, f"{name!r} is also in line {lines[name]}", "give each service once"
            )
        given[name] = _threshold_ms(name, value_node, place)
        lines[name] = name_node.start_mark.line + 1
    default_ms = given.pop(_DEFAULT_KEY, DEFAULT_APDEX_THRESHOLD_MS)
    return ApdexThresholds(default_ms, MappingProxyType(given))


def _entries(path: Path) -> list[tuple[yaml.Node, yaml.Node]]:
    try:
        document = yaml.compose(path.read_bytes(), Loader=yaml.SafeLoader)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(path, reason, "check the path and its permissions") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        raise InputError(_at(path, line), f"no YAML: {error.problem}", _EXAMPLE) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = str(error).splitlines()[0]
        raise InputError(path, f"no YAML: {problem}", _EXAMPLE) from error
    if not isinstance(document, yaml.MappingNode):
        line = document.start_mark.line + 1 if document is not None else 1
        raise InputError(_at(path, line), "there is no mapping of services", _EXAMPLE)
    return list(document.value)


def _at(path: str | Path, line: int) -> str:
    return f"{path}:{line}"


def _name(node: yaml.Node, place: str) -> str:
    """Return a service's name as metrics have it, which is cut."""
    if not isinstance(node, yaml.ScalarNode):
        raise InputError(place, "the name of a service is a text", _EXAMPLE)
    return str(node.value)[:SERVICE_LENGTH]


def _threshold_ms(name: str, node: yaml.Node, place: str) -> int:
    text = node.value if isinstance(node, yaml.ScalarNode) and node.style is None else ""
    if _WHOLE_NUMBER.fullmatch(text) and 0 < int(text) <= _LARGEST_MS:
        return int(text)
    got = f"`{text}`" if text else "something else"
    raise InputError(
        place,
        f"the threshold of {name!r} is {got}",
        f"give whole milliseconds from 1 to {_LARGEST_MS:,}, without quotes",
    )
