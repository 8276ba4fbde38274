"""The names of Pods and Services, as of each moment (analysis.md, section 2).

A Pod has the name of one Service, of those that select it the one with the shortest name, then the
first in ASCII order: so Rover names it. A Service whose Pods all have the name of one other is an
alias of that one. Both change when Services and labels do, so each is a row of intervals.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from framewalk.engine.kubernetes.inventory import OPEN_END_NS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from framewalk.engine.kubernetes.inventory import History, Inventory, Pod, Service

# The label that says what a Pod is; the others are older customs.
_NAME_LABELS: Final = ("app.kubernetes.io/name", "k8s-app", "app")
_HASH: Final = re.compile(r"-[bcdfghjklmnpqrstvwxz2456789]{5,10}$")
_SCHEDULED: Final = re.compile(r"-[0-9]{8,10}$")


class Name(NamedTuple):
    """What something is called from when to when; None: it has no name."""

    start_ns: int
    end_ns: int
    service: str | None
    is_by_owner: bool = False


class Alias(NamedTuple):
    """A Service whose Pods have the name of another, from when to when."""

    namespace: str
    alias: str
    service: str
    start_ns: int
    end_ns: int


@dataclass(slots=True)
class Names:
    """The names of a cluster's Pods and Services, by their place in the inventory."""

    pods: list[list[Name]] = field(default_factory=list)
    services: list[list[Name]] = field(default_factory=list)
    aliases: list[Alias] = field(default_factory=list)
    shared: set[tuple[str, ...]] = field(default_factory=set)


def names_of(inventory: Inventory, *, by_owner: bool = False) -> Names:
    """Name all Pods and Services; `by_owner` names Pods without a Service after their owner.

    `shared` has (name, other Services) of Pods that several Services select.
    """
    selectors = _Selectors(inventory.services)
    names = Names()
    members: dict[int, list[Name]] = defaultdict(list)
    for history in inventory.pods:
        selected = list(selectors.selections(history))
        given = _names_in_time(history, selected)
        names.pods.append(_with_owner(history, given) if by_owner else given)
        _note_members(selected, given, members)
        _note_shared(history.newest.namespace, selected, given, names.shared)
    for number, service in enumerate(inventory.services):
        own, aliases = _service_names(service, members[number])
        names.services.append(own)
        names.aliases += aliases
    return names


def life_of(pod: History[Pod]) -> tuple[int, int]:
    """Return from when to when a Pod lived, as far as that is known."""
    ends = [span.thing.ended_ns for span in pod.spans if span.thing.ended_ns is not None]
    return pod.created_ns, min(pod.gone_ns, *ends[-1:], OPEN_END_NS)


class _Selected(NamedTuple):
    start_ns: int
    end_ns: int
    number: int
    name: str


_Key = tuple[str, str, str]


class _Selectors:
    """Finds the Services that select a Pod without trying all of them.

    Each version of a Service lies under the rarest (key, value) of its selector in its namespace;
    only those under one of the Pod's own labels can select it.
    """

    def __init__(self, services: tuple[History[Service], ...]) -> None:
        versions = [
            (start_ns, end_ns, number, service)
            for number, history in enumerate(services)
            for start_ns, end_ns, service in history.versions()
            if service.selector
        ]
        uses = Counter(key for *_, service in versions for key in _keys(service))
        self._versions: dict[_Key, list[tuple[int, int, int, Service]]] = defaultdict(list)
        for version in versions:
            rarest = min(_keys(version[-1]), key=lambda key: (uses[key], key))
            self._versions[rarest].append(version)

    def selections(self, pod: History[Pod]) -> Iterator[_Selected]:
        """Yield the Services that select a Pod, from when to when both are so.

        A Pod that has ended is behind no Service any more.
        """
        _, over_ns = life_of(pod)
        for start_ns, end_ns, version in pod.versions():
            for since_ns, until_ns, number, service in self._selecting(version):
                first_ns, last_ns = max(start_ns, since_ns), min(end_ns, until_ns, over_ns)
                if first_ns < last_ns:
                    yield _Selected(first_ns, last_ns, number, service.name)

    def _selecting(self, pod: Pod) -> Iterator[tuple[int, int, int, Service]]:
        for key, value in pod.labels.items():
            for version in self._versions.get((pod.namespace, key, value), ()):
                if version[-1].selector.items() <= pod.labels.items():
                    yield version


def _keys(service: Service) -> list[_Key]:
    return [(service.namespace, key, value) for key, value in service.selector.items()]


def _names_in_time(pod: History[Pod], selected: list[_Selected]) -> list[Name]:
    """Return the names of a Pod from its creation on."""
    created_ns, namespace = pod.created_ns, pod.newest.namespace
    edges = {edge for one in selected for edge in (one.start_ns, one.end_ns)}
    borders = sorted({created_ns, *edges, pod.gone_ns, OPEN_END_NS})
    names: list[Name] = []
    for start_ns, end_ns in pairwise(borders):
        services = [one.name for one in selected if one.start_ns <= start_ns < one.end_ns]
        best = min(services, key=lambda name: (len(name), name), default=None)
        name = None if best is None else f"{best}.{namespace}"
        if names and names[-1].service == name:
            names[-1] = names[-1]._replace(end_ns=end_ns)
        else:
            names.append(Name(start_ns, end_ns, name))
    # A Service is often made anew, or after its Pods: before, it is better than no name.
    if len(names) > 1 and names[0].service is None:
        names[:2] = [names[1]._replace(start_ns=names[0].start_ns)]
    return names


def _with_owner(pod: History[Pod], names: list[Name]) -> list[Name]:
    name = owner_name(pod.newest)
    if name is None:
        return names
    full = f"{name}.{pod.newest.namespace}"
    return [
        one if one.service is not None else one._replace(service=full, is_by_owner=True)
        for one in names
    ]


def owner_name(pod: Pod) -> str | None:
    """Return what a Pod is called that no Service selects, None where nothing says so.

    That is its name label, or its controller: the Deployment of a ReplicaSet, the CronJob of a Job.
    """
    labelled = next((pod.labels[name] for name in _NAME_LABELS if pod.labels.get(name)), None)
    if labelled is not None:
        return labelled
    if pod.owner is None:
        return None
    kind, name = pod.owner
    if kind == "Node" or not name:
        return None
    return controller_of(kind, name, pod.labels)[1]


def controller_of(kind: str, name: str, labels: Mapping[str, str]) -> tuple[str, str]:
    """Return the kind and name of what controls a controller, as far as its name says so."""
    if kind == "ReplicaSet":
        given = labels.get("pod-template-hash")
        if given and name.endswith(f"-{given}"):
            return "Deployment", name.removesuffix(f"-{given}")
        found = _HASH.search(name)
        return ("Deployment", name[: found.start()]) if found and found.start() else (kind, name)
    if kind == "Job":
        found = _SCHEDULED.search(name)
        return ("CronJob", name[: found.start()]) if found and found.start() else (kind, name)
    return kind, name


def _note_members(
    selected: list[_Selected], names: list[Name], members: dict[int, list[Name]]
) -> None:
    """Add to each Service from when to when it selects a Pod of which name."""
    for one in selected:
        for name in names:
            start_ns, end_ns = max(one.start_ns, name.start_ns), min(one.end_ns, name.end_ns)
            if start_ns < end_ns and not name.is_by_owner:
                members[one.number].append(Name(start_ns, end_ns, name.service))


def _note_shared(
    namespace: str, selected: list[_Selected], names: list[Name], shared: set[tuple[str, ...]]
) -> None:
    services = {f"{one.name}.{namespace}" for one in selected}
    if len(services) > 1:
        last = next((name.service for name in reversed(names) if name.service), "")
        shared.add((last or "", *sorted(services - {last})))


def _service_names(
    service: History[Service], members: list[Name]
) -> tuple[list[Name], list[Alias]]:
    """Return the names of a Service from its creation on, and when it was an alias."""
    newest = service.newest
    own = f"{newest.name}.{newest.namespace}"
    borders = {edge for one in members for edge in (one.start_ns, one.end_ns)}
    begins: dict[int, list[str | None]] = defaultdict(list)
    ends: dict[int, list[str | None]] = defaultdict(list)
    for one in members:
        begins[one.start_ns].append(one.service)
        ends[one.end_ns].append(one.service)
    now: Counter[str | None] = Counter()
    names: list[Name] = []
    in_order = sorted({service.created_ns, *borders, service.gone_ns, OPEN_END_NS})
    for start_ns, end_ns in pairwise(in_order):
        now.update(begins[start_ns])
        now.subtract(ends[start_ns])
        present = [name for name, count in now.items() if count]
        name = present[0] if len(present) == 1 and present[0] else own
        if names and names[-1].service == name:
            names[-1] = names[-1]._replace(end_ns=end_ns)
        else:
            names.append(Name(start_ns, end_ns, name))
    aliases = [
        Alias(newest.namespace, newest.name, one.service or own, one.start_ns, one.end_ns)
        for one in names
        if one.service != own
    ]
    return names, aliases
