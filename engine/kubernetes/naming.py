"""The names of Pods and Services, as of each moment (analysis.md, section 2).

A Pod has the name of one Service, of those that select it the one with the shortest name, then the
first in ASCII order: so Rover names it. A Service whose Pods all have the name of one other is an
alias of that one. Both change when Services and labels do, so each is a row of intervals.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from itertools import pairwise
from sys import intern
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from framewalk.engine.kubernetes.inventory import OPEN_END_NS, Pod, Service

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from framewalk.engine.kubernetes.inventory import History, Identity

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


class ClusterNames:
    """The names of a cluster's Pods and Services, made again only where something has changed.

    `known_pods` and `known_services` are all that there are; who changes them calls `update`.
    `by_owner` names Pods without a Service after their owner.
    """

    def __init__(
        self,
        known_pods: Mapping[Identity, History[Pod]],
        known_services: Mapping[Identity, History[Service]],
        *,
        by_owner: bool = False,
    ) -> None:
        self._known_pods = known_pods
        self._known_services = known_services
        self._by_owner = by_owner
        self._selectors = _Selectors()
        self._members: dict[Identity, _Members] = defaultdict(_Members)
        self._behind: dict[Identity, tuple[Identity, ...]] = {}
        self._shared: dict[Identity, tuple[str, ...]] = {}
        self.pods: dict[Identity, list[Name]] = {}
        self.services: dict[Identity, list[Name]] = {}
        self.aliases: dict[Identity, list[Alias]] = {}

    @property
    def shared(self) -> set[tuple[str, ...]]:
        """(name, other Services) of Pods that several Services select."""
        return set(self._shared.values())

    def update(self, before: Mapping[Identity, History[Any] | None]) -> set[Identity]:
        """Learn who has come, changed or gone, and was what before; returns who has another name.

        What is neither a Pod nor a Service is passed over.
        """
        pods = {one for one in before if one[0] is Pod}
        services = {one for one in before if one[0] is Service}
        for pod in pods:
            self._selectors.label(pod, before[pod], self._known_pods.get(pod))
        others, selected = self._selectors.select(services, self._known_services)
        named = pods | selected
        for service in others:
            named |= self._members[service].by_pod.keys()
        renamed: set[Identity] = set()
        regrouped = set(services)
        for pod in named:
            regrouped.update(self._behind.get(pod, ()))
            if self._name_pod(pod):
                renamed.add(pod)
            regrouped.update(self._behind.get(pod, ()))
        renamed.update(service for service in regrouped if self._name_service(service))
        return renamed

    def _name_pod(self, pod: Identity) -> bool:
        """Name a Pod; returns whether it has another name than before."""
        for service in self._behind.pop(pod, ()):
            self._members[service].remove(pod)
        self._shared.pop(pod, None)
        history = self._known_pods.get(pod)
        if history is None:
            return self.pods.pop(pod, None) is not None
        selected = list(self._selectors.selections(history))
        given = _names_in_time(history, selected)
        if selected:
            self._behind[pod] = tuple(dict.fromkeys(one.service for one in selected))
            for service, names in _memberships(selected, given).items():
                self._members[service].add(pod, names)
            if len(selected) > 1:
                self._note_shared(pod, history.newest.namespace, selected, given)
        before = self.pods.get(pod)
        named = _with_owner(history, given) if self._by_owner else given
        self.pods[pod] = named
        return named != before

    def _name_service(self, service: Identity) -> bool:
        history = self._known_services.get(service)
        if history is None:
            if not self._members[service].by_pod:
                del self._members[service]
            self.aliases.pop(service, None)
            return self.services.pop(service, None) is not None
        names, aliases = _service_names(history, self._members[service])
        if aliases:
            self.aliases[service] = aliases
        else:
            self.aliases.pop(service, None)
        before = self.services.get(service)
        self.services[service] = names
        return names != before

    def _note_shared(
        self, pod: Identity, namespace: str, selected: list[_Selected], names: list[Name]
    ) -> None:
        services = {f"{one.name}.{namespace}" for one in selected}
        if len(services) > 1:
            last = next((name.service for name in reversed(names) if name.service), "")
            self._shared[pod] = (last or "", *sorted(services - {last}))


class _Members:
    """The Pods that a Service selects: what each is called, and from when to when."""

    __slots__ = ("by_pod", "names")

    def __init__(self) -> None:
        self.by_pod: dict[Identity, list[Name]] = {}
        self.names: Counter[str | None] = Counter()

    def add(self, pod: Identity, names: list[Name]) -> None:
        self.by_pod[pod] = names
        self.names.update(name.service for name in names)

    def remove(self, pod: Identity) -> None:
        for name in self.by_pod.pop(pod, ()):
            self.names[name.service] -= 1
            if not self.names[name.service]:
                del self.names[name.service]


def life_of(pod: History[Pod]) -> tuple[int, int]:
    """Return from when to when a Pod lived, as far as that is known."""
    ends = [span.thing.ended_ns for span in pod.spans if span.thing.ended_ns is not None]
    return pod.created_ns, min(pod.gone_ns, *ends[-1:], OPEN_END_NS)


class _Selected(NamedTuple):
    start_ns: int
    end_ns: int
    service: Identity
    name: str


class _Version(NamedTuple):
    """What a Service selected from when to when."""

    start_ns: int
    end_ns: int
    name: str
    namespace: str
    selector: Mapping[str, str]

    @property
    def keys(self) -> list[_Key]:
        return [(self.namespace, key, value) for key, value in self.selector.items()]


_Key = tuple[str, str, str]


class _Selectors:
    """Finds the Services that select a Pod, and the Pods of a Service, without trying all of them.

    Each version of a Service lies under the rarest (key, value) of its selector in its namespace;
    only those under one of the Pod's own labels can select it. Pods lie under each of their labels.
    """

    def __init__(self) -> None:
        self._uses: Counter[_Key] = Counter()
        self._versions: dict[Identity, list[_Version]] = {}
        self._under: dict[_Key, dict[Identity, list[_Version]]] = defaultdict(dict)
        self._labelled: dict[_Key, set[Identity]] = defaultdict(set)

    def label(self, pod: Identity, before: History[Pod] | None, after: History[Pod] | None) -> None:
        """Learn the labels of a Pod that has come, changed or gone."""
        old, new = _labels_of(before), _labels_of(after)
        for key in old - new:
            self._labelled[key].discard(pod)
            if not self._labelled[key]:
                del self._labelled[key]
        for key in new - old:
            self._labelled[key].add(pod)

    def select(
        self, services: set[Identity], known: Mapping[Identity, History[Service]]
    ) -> tuple[set[Identity], set[Identity]]:
        """Learn what Services select that have come, changed or gone.

        Returns those that select otherwise than before, and the Pods that these may select now.
        """
        changed: dict[Identity, list[_Version]] = {}
        for service in services:
            history = known.get(service)
            versions = _selecting_versions(history) if history is not None else []
            if versions != self._versions.get(service, []):
                changed[service] = versions
        for service, versions in changed.items():
            for one in self._versions.pop(service, ()):
                self._forget(service, one)
            if versions:
                self._versions[service] = versions
                self._uses.update(key for one in versions for key in one.keys)
        pods: set[Identity] = set()
        for service, versions in changed.items():
            for one in versions:
                rarest = min(one.keys, key=lambda key: (self._uses[key], key))
                self._under[rarest].setdefault(service, []).append(one)
                pods |= self._selected_by(one)
        return set(changed), pods

    def _forget(self, service: Identity, version: _Version) -> None:
        for key in version.keys:
            self._uses[key] -= 1
            if not self._uses[key]:
                del self._uses[key]
            self._under[key].pop(service, None)
            if not self._under[key]:
                del self._under[key]

    def selections(self, pod: History[Pod]) -> Iterator[_Selected]:
        """Yield the Services that select a Pod, from when to when both are so.

        A Pod that has ended is behind no Service any more.
        """
        _, over_ns = life_of(pod)
        for start_ns, end_ns, version in pod.versions():
            for service, since_ns, until_ns, name in self._selecting(version):
                first_ns, last_ns = max(start_ns, since_ns), min(end_ns, until_ns, over_ns)
                if first_ns < last_ns:
                    yield _Selected(first_ns, last_ns, service, name)

    def _selecting(self, pod: Pod) -> Iterator[tuple[Identity, int, int, str]]:
        labels = pod.labels
        for key, value in labels.items():
            under = self._under.get((pod.namespace, key, value))
            for service, versions in under.items() if under else ():
                for one in versions:
                    if one.selector.items() <= labels.items():
                        yield service, one.start_ns, one.end_ns, one.name

    def _selected_by(self, version: _Version) -> set[Identity]:
        """Return the Pods that have all labels of a selector, though maybe not at once."""
        groups = [self._labelled.get(key, set()) for key in version.keys]
        return set.intersection(*sorted(groups, key=len))


def _labels_of(pod: History[Pod] | None) -> set[_Key]:
    if pod is None:
        return set()
    namespace = pod.newest.namespace
    distinct = {id(span.thing.labels): span.thing.labels for span in pod.spans}
    return {
        (namespace, key, value) for labels in distinct.values() for key, value in labels.items()
    }


def _selecting_versions(service: History[Service]) -> list[_Version]:
    return [
        _Version(start_ns, end_ns, one.name, one.namespace, one.selector)
        for start_ns, end_ns, one in service.versions()
        if one.selector
    ]


def _names_in_time(pod: History[Pod], selected: list[_Selected]) -> list[Name]:
    """Return the names of a Pod from its creation on."""
    created_ns, namespace = pod.created_ns, pod.newest.namespace
    edges = {edge for one in selected for edge in (one.start_ns, one.end_ns)}
    borders = sorted({created_ns, *edges, pod.gone_ns, OPEN_END_NS})
    names: list[Name] = []
    for start_ns, end_ns in pairwise(borders):
        services = [one.name for one in selected if one.start_ns <= start_ns < one.end_ns]
        best = min(services, key=lambda name: (len(name), name), default=None)
        # A name is that of many Pods, and takes memory once.
        name = None if best is None else intern(f"{best}.{namespace}")
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


def _memberships(selected: list[_Selected], names: list[Name]) -> dict[Identity, list[Name]]:
    """Return from when to when each Service selects a Pod of which name."""
    found: dict[Identity, list[Name]] = {}
    for one in selected:
        for name in names:
            start_ns, end_ns = max(one.start_ns, name.start_ns), min(one.end_ns, name.end_ns)
            if start_ns < end_ns:
                is_whole = (start_ns, end_ns) == name[:2]
                part = name if is_whole else Name(start_ns, end_ns, name.service)
                found.setdefault(one.service, []).append(part)
    return found


def _service_names(service: History[Service], members: _Members) -> tuple[list[Name], list[Alias]]:
    """Return the names of a Service from its creation on, and when it was an alias."""
    newest = service.newest
    own = f"{newest.name}.{newest.namespace}"
    if members.names.keys() <= {own}:
        start_ns = min(service.created_ns, service.gone_ns)
        return [Name(start_ns, OPEN_END_NS, own)], []
    every = [name for names in members.by_pod.values() for name in names]
    borders = {edge for one in every for edge in (one.start_ns, one.end_ns)}
    begins: dict[int, list[str | None]] = defaultdict(list)
    ends: dict[int, list[str | None]] = defaultdict(list)
    for one in every:
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
