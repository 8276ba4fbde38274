"""What is known of Pods and of names beside addresses: rows, and lines for an operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.kubernetes.inventory import OPEN_END_NS, OPEN_START_NS
from framewalk.engine.kubernetes.naming import controller_of, life_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from framewalk.engine.kubernetes.inventory import Inventory, Pod
    from framewalk.engine.kubernetes.naming import Names

_LABEL: Final = pl.Struct({"key": pl.String, "value": pl.String})

# `from_ns` and `to_ns` are in ns since 1970, null where they are not known, or it goes on. A Pod
# has a row for each name that it had; `is_by_owner` marks a name that is not a Service's.
PODS_SCHEMA: Final = pl.Schema(
    {
        "cluster": pl.String(),
        "service": pl.String(),
        "instance": pl.String(),
        "namespace": pl.String(),
        "node": pl.String(),
        "addresses": pl.List(pl.String),
        "owner_kind": pl.String(),
        "owner_name": pl.String(),
        "version": pl.String(),
        "labels": pl.List(_LABEL),
        "is_by_owner": pl.Boolean(),
        "from_ns": pl.Int64(),
        "to_ns": pl.Int64(),
    }
)
# `alias` and `service` are names of Services with their namespace.
ALIASES_SCHEMA: Final = pl.Schema(
    {
        "alias": pl.String,
        "service": pl.String,
        "namespace": pl.String,
        "cluster": pl.String,
        "from_ns": pl.Int64,
        "to_ns": pl.Int64,
    }
)

_VERSION_LABELS: Final = ("app.kubernetes.io/version", "version")


def pod_rows(cluster: str, inventory: Inventory, names: Names) -> Iterator[tuple[object, ...]]:
    """Yield rows of PODS_SCHEMA."""
    for history, given in zip(inventory.pods, names.pods, strict=True):
        pod = history.newest
        start_ns, end_ns = life_of(history)
        ips = dict.fromkeys(ip for span in history.spans for ip in span.thing.ip_addresses)
        described = (*_owner(pod), _version(pod))
        labels = [{"key": key, "value": value} for key, value in pod.labels.items()]
        for name in given:
            from_ns, to_ns = max(start_ns, name.start_ns), min(end_ns, name.end_ns)
            if from_ns < to_ns:
                yield (
                    *(cluster, name.service, pod.name, pod.namespace, pod.node or None),
                    *(list(ips), *described, labels, name.is_by_owner),
                    *(_start_or_none(from_ns), _end_or_none(to_ns)),
                )


def alias_rows(cluster: str, names: Names) -> Iterator[tuple[object, ...]]:
    """Yield rows of ALIASES_SCHEMA."""
    for one in names.aliases:
        yield (
            *(f"{one.alias}.{one.namespace}", one.service, one.namespace, cluster),
            *(_start_or_none(one.start_ns), _end_or_none(one.end_ns)),
        )


def shared_names(cluster: str, names: Names) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield which Services are aliases, and which select the same Pods, each once."""
    where = {"cluster": cluster} if cluster else {}
    for one in dict.fromkeys(
        (f"{one.alias}.{one.namespace}", one.service) for one in names.aliases
    ):
        yield "a Service has the name of another", {"alias": one[0], "service": one[1], **where}
    for service, *others in sorted(names.shared):
        facts = {"service": service, "others": ", ".join(others), **where}
        yield "several Services select the same pods", facts


def _owner(pod: Pod) -> tuple[str | None, str | None]:
    return (None, None) if pod.owner is None else controller_of(*pod.owner, pod.labels)


def _version(pod: Pod) -> str | None:
    return next((pod.labels[name] for name in _VERSION_LABELS if pod.labels.get(name)), None)


def _start_or_none(time_ns: int) -> int | None:
    return None if time_ns == OPEN_START_NS else time_ns


def _end_or_none(time_ns: int) -> int | None:
    return None if time_ns == OPEN_END_NS else time_ns
