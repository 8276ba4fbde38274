"""Which patterns fold the paths of endpoints, per service, from a YAML file.

A flat mapping of service names to lists of patterns, in which `default` is for all services that it
does not name.

    default: [uuid]
    orders.shop: [number, uuid]
    legacy.shop: []
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import yaml

from framewalk.engine.errors import InputError
from framewalk.engine.oal.files.of_services import lines_of_services
from framewalk.engine.oal.plan import PATTERNS, EndpointPatterns

if TYPE_CHECKING:
    from pathlib import Path

_DEFAULT_KEY: Final = "default"
_EXAMPLE: Final = "write lines such as `orders.shop: [number, uuid]`"


def read_endpoint_patterns(path: str | Path) -> EndpointPatterns:
    """Read which patterns fold the paths of which services.

    Raises:
        InputError: the file cannot be read or holds something else; it names the line.
    """
    given = {
        name: _patterns(name, node, place)
        for name, node, place in lines_of_services(path, _EXAMPLE)
    }
    default = given.pop(_DEFAULT_KEY, ())
    return EndpointPatterns(default, MappingProxyType(given))


def _patterns(service: str, node: yaml.Node, place: str) -> tuple[str, ...]:
    """Return the patterns in the order in which they are tried."""
    if not isinstance(node, yaml.SequenceNode):
        raise InputError(place, f"what {service!r} has is no list", _EXAMPLE)
    names = {one.value if isinstance(one, yaml.ScalarNode) else "" for one in node.value}
    unknown = sorted(names.difference(PATTERNS))
    if unknown:
        known = ", ".join(PATTERNS)
        raise InputError(place, f"there is no pattern {unknown[0]!r}", f"there are {known}")
    return tuple(name for name in PATTERNS if name in names)
