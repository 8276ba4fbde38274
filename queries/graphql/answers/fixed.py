"""Answers that are the same whatever the store holds: menus, and what is not kept here."""

from __future__ import annotations

from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Any, Final

from framewalk.queries.graphql.answers.topology import LAYER, MESH

if TYPE_CHECKING:
    from framewalk.queries.graphql.answers.asked import Asked

# The release of the OAP whose protocol this is: clients choose their questions by it.
_PROTOCOL: Final = "10.4.0"
_DOCUMENTATION: Final = "https://skywalking.apache.org/docs/"
_MS_PER_S: Final = 1_000


def version(_asked: Asked) -> str:
    """Return the release of the protocol, and of framewalk."""
    return f"{_PROTOCOL}-framewalk-{version_of('framewalk')}"


def health(_asked: Asked) -> dict[str, Any]:
    """Return that this is well: an engine that is down answers nothing."""
    return {"score": 0, "details": ""}


def time_info(asked: Asked) -> dict[str, Any]:
    """Return the time zone of all times here, and the time."""
    return {"timezone": "+0000", "currentTimestamp": int(asked.now_s * _MS_PER_S)}


def metrics_ttl(asked: Asked) -> dict[str, int]:
    """Return for how many days metrics are kept."""
    minute, hour, day = asked.options.ttl_days
    kept = {"metadata": day, "minute": minute, "hour": hour, "day": day}
    return kept | dict.fromkeys(("coldMinute", "coldHour", "coldDay"), -1)


def records_ttl(asked: Asked) -> dict[str, int]:
    """Return for how many days logs are kept; other records there are none."""
    names = ("normal", "trace", "zipkinTrace", "log", "browserErrorLog")
    cold = (f"cold{name[0].upper()}{name[1:]}" for name in names)
    return dict.fromkeys(names, asked.options.record_ttl_days) | dict.fromkeys(cold, -1)


def layers(_asked: Asked) -> list[str]:
    """Return the layer that there are pages for."""
    return [LAYER]


def layer_levels(_asked: Asked) -> list[dict[str, Any]]:
    """Return its level, and that of the layer above it, as an OAP has them."""
    return [{"layer": MESH, "level": 3}, {"layer": LAYER, "level": 0}]


def menu(_asked: Asked) -> list[dict[str, Any]]:
    """Return the menu, which leads to services also where there are none yet."""
    leaf = _item("Service", None, LAYER, "kubernetes_service", [])
    return [_item("Kubernetes", "kubernetes", "", "kubernetes", [leaf])]


def _item(
    title: str, icon: str | None, layer: str, key: str, inside: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "title": title,
        "icon": icon,
        "layer": layer,
        "activate": True,
        "subItems": inside,
        "description": "Services of Kubernetes, as Rover's access logs show them.",
        "documentLink": _DOCUMENTATION,
        "i18nKey": key,
    }


def containers(_asked: Asked, **_arguments: object) -> dict[str, Any]:
    """Return why there are no logs of pods."""
    return {"errorReason": "framewalk does not read the logs of pods.", "containers": []}


def no_profiling(_asked: Asked, **_arguments: object) -> dict[str, Any]:
    """Return that nothing can be profiled."""
    return {"couldProfiling": False, "processLabels": []}


def nothing(_asked: Asked, **_arguments: object) -> None:
    """Return null."""


def nobody(_asked: Asked, **_arguments: object) -> list[Any]:
    """Return an empty list."""
    return []


def none(_asked: Asked, **_arguments: object) -> int:
    """Return 0."""
    return 0


def no(_asked: Asked, **_arguments: object) -> bool:
    """Return false."""
    return False


def no_alarms(_asked: Asked, **_arguments: object) -> dict[str, Any]:
    """Return no alarms."""
    return {"msgs": []}


def no_events(_asked: Asked, **_arguments: object) -> dict[str, Any]:
    """Return no events."""
    return {"events": []}
