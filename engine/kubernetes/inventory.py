"""A cluster's objects, each once, with the history of what was seen of them.

Dumps, and a live watch, give *sightings*: an object as it was at some moment. Sightings agree in
namespace, name and uid; one without a uid is of the object with the same creationTimestamp. They
are put in the order of when they were made, so the order of files does not matter, and what an
older sighting says never stands against a newer one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Self, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

OPEN_START_NS: Final = -(2**63)
OPEN_END_NS: Final = 2**63 - 1

# How long an object that is gone is remembered: logs come late.
REMEMBERED_S: Final = 7200
# Versions of one object that are remembered: one that changes all the time costs no more.
_MOST_SPANS: Final = 64


@dataclass(frozen=True, slots=True)
class Pod:
    """A Pod: times in ns since 1970 (None: not known), addresses in canonical text form.

    It had its addresses from `got_ns` on, and may have had them from `start_ns` on; `is_exact`
    says that `got_ns` is when it got them, and no later moment at which it had them. `is_over`
    tells that it has ended (phase Succeeded or Failed), `ended_ns` when. `ports` are those that
    its containers declare, `host_ports` those of its node. `owner` is the kind and the name of
    its controller. `uid` is empty where the dumps have none.
    """

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str]
    created_ns: int | None = None
    start_ns: int | None = None
    got_ns: int | None = None
    is_exact: bool = False
    ended_ns: int | None = None
    is_over: bool = False
    ip_addresses: tuple[str, ...] = ()
    host_network: bool = False
    node: str = ""
    node_addresses: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    host_ports: tuple[int, ...] = ()
    owner: tuple[str, str] | None = None


class Port(NamedTuple):
    """A port of a Service, and that of every node which leads to it (0: none)."""

    number: int
    node_port: int
    is_tcp: bool


@dataclass(frozen=True, slots=True)
class Service:
    """A Service: `ip_addresses` are its cluster's, `outer_addresses` external and balancers'."""

    namespace: str
    name: str
    uid: str
    selector: Mapping[str, str]
    created_ns: int | None = None
    ip_addresses: tuple[str, ...] = ()
    outer_addresses: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """Addresses behind a Service; without `ports` any port is meant."""

    namespace: str
    name: str
    uid: str
    service: str
    created_ns: int | None = None
    ip_addresses: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """A node; `networks` are those of its pods (`10.244.1.0/24`). Its namespace is empty."""

    name: str
    uid: str
    created_ns: int | None = None
    ip_addresses: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    namespace: str = ""


# What tells an object from all others; its type comes first.
Identity: TypeAlias = tuple[Any, ...]
Thing = TypeVar("Thing", Pod, Service, EndpointSlice, Node)
AnyThing = Pod | Service | EndpointSlice | Node


class Seen(NamedTuple):
    """When something was seen; the later is greater.

    `version` is the resourceVersion of the cluster by then (-1: not known), `at_ns` the time, or
    one that is not later (OPEN_START_NS: not known).
    """

    version: int = -1
    at_ns: int = OPEN_START_NS


@dataclass(frozen=True, slots=True)
class Sighting(Generic[Thing]):
    """An object as it was at some moment; `is_gone` tells that it was there no more.

    `version` is the object's own resourceVersion (-1: not known).
    """

    seen: Seen
    thing: Thing
    version: int = -1
    is_gone: bool = False


@dataclass(frozen=True, slots=True)
class Span(Generic[Thing]):
    """An object that was the same when it was seen first and last, and maybe between."""

    first: Seen
    last: Seen
    thing: Thing
    version: int = -1


@dataclass(frozen=True, slots=True)
class History(Generic[Thing]):
    """What was seen of one object, in its order; `gone` is when it was there no more."""

    spans: tuple[Span[Thing], ...]
    gone: Seen | None = None

    @property
    def newest(self) -> Thing:
        """The object as it was seen last."""
        return self.spans[-1].thing

    @property
    def identity(self) -> Identity:
        """What tells the object from all others."""
        thing = self.newest
        return type(thing), thing.namespace, thing.name, thing.uid or self.created_ns

    @property
    def created_ns(self) -> int:
        """When it was created; OPEN_START_NS where that is not known."""
        known = [span.thing.created_ns for span in self.spans if span.thing.created_ns is not None]
        return known[-1] if known else OPEN_START_NS

    @property
    def gone_ns(self) -> int:
        """When it was there no more; OPEN_END_NS where that is not known."""
        if self.gone is None or self.gone.at_ns == OPEN_START_NS:
            return OPEN_END_NS
        return self.gone.at_ns

    def seeing(self, sighting: Sighting[Thing]) -> History[Thing]:
        """Add a sighting of the same object; the usual one, newer than all others, costs little.

        It is what `Inventory.of` makes of all sightings.
        """
        spans: tuple[Span[Any], ...] = self.spans
        last, seen = spans[-1], sighting.seen
        is_newer = (sighting.version, seen) > (last.version, last.last)
        if self.gone is not None or not is_newer or sighting.thing.uid != last.thing.uid:
            (merged,) = Inventory.of([*self.sightings(), sighting]).histories
            return merged
        if sighting.is_gone:
            is_last = seen >= max(span.last for span in spans)
            return History(spans, seen) if is_last else self
        if sighting.thing == last.thing:
            again = Span(last.first, max(last.last, seen), last.thing, last.version)
            return History((*spans[:-1], again))
        thing: Any = _sharing(sighting.thing, last.thing)
        new = Span(seen, seen, thing, sighting.version)
        return History((*spans, new)[-_MOST_SPANS:])

    def versions(self) -> Iterator[tuple[int, int, Thing]]:
        """Yield (from, to, thing) for all that it was, from its creation until it was gone.

        What changed did so by the sighting that shows it.
        """
        starts: list[int] = [self.created_ns]
        for before, after in zip(self.spans, self.spans[1:], strict=False):
            changed_ns = max(before.last.at_ns, after.first.at_ns)
            starts.append(max(changed_ns, starts[-1]))
        for start, end, span in zip(starts, [*starts[1:], self.gone_ns], self.spans, strict=True):
            if start < end:
                yield start, end, span.thing

    def sightings(self) -> Iterator[Sighting[Thing]]:
        """Yield sightings that make this history again."""
        for span in self.spans:
            yield Sighting(span.first, span.thing, span.version)
            if span.last != span.first:
                yield Sighting(span.last, span.thing, span.version)
        if self.gone is not None:
            yield Sighting(self.gone, self.newest, is_gone=True)


@dataclass(frozen=True, slots=True)
class Inventory:
    """What is known of one cluster: each object once, by (namespace, name, created_ns)."""

    pods: tuple[History[Pod], ...] = ()
    services: tuple[History[Service], ...] = ()
    slices: tuple[History[EndpointSlice], ...] = ()
    nodes: tuple[History[Node], ...] = ()

    @classmethod
    def of(cls, sightings: Iterable[Sighting[Any]]) -> Self:
        """Merge sightings, in whatever order."""
        kinds: dict[type, list[Sighting[Any]]] = {Pod: [], Service: [], EndpointSlice: [], Node: []}
        for sighting in sightings:
            kinds[type(sighting.thing)].append(sighting)
        return cls(*(_histories(seen) for seen in kinds.values()))

    @property
    def histories(self) -> tuple[History[Any], ...]:
        """All objects."""
        return (*self.pods, *self.services, *self.slices, *self.nodes)

    def sightings(self) -> Iterator[Sighting[Any]]:
        """Yield sightings that make this inventory again."""
        for history in self.histories:
            yield from history.sightings()


def identity_of(thing: AnyThing) -> Identity:
    """Return what tells an object from all others, as far as it says so itself."""
    return type(thing), thing.namespace, thing.name, thing.uid or thing.created_ns


def identities(sightings: Sequence[Sighting[Thing]]) -> list[tuple[object, ...]]:
    """Return what tells the object of each sighting."""
    uids: dict[object, str] = {}
    for thing in (one.thing for one in sightings):
        known = (thing.namespace, thing.name, thing.created_ns)
        uids[known] = max(thing.uid, uids.get(known, ""))
    found: list[tuple[object, ...]] = []
    for thing in (one.thing for one in sightings):
        uid = thing.uid or uids[thing.namespace, thing.name, thing.created_ns]
        found.append((type(thing), thing.namespace, thing.name, uid or thing.created_ns))
    return found


def _histories(sightings: list[Sighting[Thing]]) -> tuple[History[Thing], ...]:
    """Group by object, and order each group by how recent the knowledge is."""
    groups: dict[object, list[Sighting[Thing]]] = {}
    for sighting, identity in zip(sightings, identities(sightings), strict=True):
        groups.setdefault(identity, []).append(sighting)
    histories = [_history(seen) for seen in groups.values()]
    return tuple(sorted(histories, key=place_of))


def _history(sightings: list[Sighting[Thing]]) -> History[Thing]:
    uid = max(one.thing.uid for one in sightings)
    there = [one for one in sightings if not one.is_gone] or sightings
    spans: list[Span[Thing]] = []
    for one in sorted(there, key=_recency):
        thing = one.thing if one.thing.uid == uid else replace(one.thing, uid=uid)
        if spans and spans[-1].thing == thing:
            spans[-1] = replace(spans[-1], last=max(one.seen, spans[-1].last))
        else:
            spans.append(Span(one.seen, one.seen, thing, one.version))
    last = max(span.last for span in spans)
    # One that is seen again was not gone.
    gone = min((one.seen for one in sightings if one.is_gone and one.seen >= last), default=None)
    return History(tuple(spans[-_MOST_SPANS:]), gone)


def _sharing(thing: Thing, before: Thing) -> Thing:
    """Return the same thing; what it has in common with an earlier version takes no memory."""
    same: dict[str, Any] = {
        name: old
        for name in thing.__slots__
        if (old := getattr(before, name)) == getattr(thing, name)
    }
    return replace(thing, **same)


def _recency(sighting: Sighting[Thing]) -> tuple[Any, ...]:
    return sighting.version, sighting.seen, _text(sighting.thing)


def _text(thing: AnyThing) -> str:
    labels = thing.labels if isinstance(thing, Pod) else getattr(thing, "selector", {})
    return f"{sorted(labels.items())} {thing}"


def place_of(history: History[Any]) -> tuple[str, str, int, str]:
    """Return what objects of a kind are sorted by."""
    thing = history.newest
    return thing.namespace, thing.name, history.created_ns, thing.uid
