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
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import yaml

from framewalk.engine.errors import InputError
from framewalk.engine.oal.files.of_services import lines_of_services
from framewalk.engine.schemas import DEFAULT_APDEX_THRESHOLD_MS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

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
    given = {
        name: _threshold_ms(name, node, place)
        for name, node, place in lines_of_services(path, _EXAMPLE)
    }
    default_ms = given.pop(_DEFAULT_KEY, DEFAULT_APDEX_THRESHOLD_MS)
    return ApdexThresholds(default_ms, MappingProxyType(given))


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
