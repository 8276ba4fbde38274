"""Who had an address: what sightings of several owners are evidence of, put together.

The rules are those of docs/semantics.md, "Entities": an address is an owner's from when it got it
until it lost it; of several the one that got it last has it, and one that has ended gives it back
to one that still runs; what was seen longer ago never stands against what was seen since.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from framewalk.engine.kubernetes.inventory import OPEN_END_NS, Pod, Seen, Thing

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Sequence

    from framewalk.engine.kubernetes.inventory import History, Span


class Claim(NamedTuple):
    """From when to when somebody claims it, and how well: the greatest `order` has it."""

    start_ns: int
    end_ns: int
    order: tuple[Any, ...]
    holder: Any


def timeline(claims: Sequence[Claim]) -> Iterator[tuple[int, int, Any]]:
    """Yield (from, to, holder) in the order of time, for as long as anybody claims it."""
    claims = [claim for claim in claims if claim.start_ns < claim.end_ns]
    by_order = sorted(range(len(claims)), key=lambda number: claims[number].order, reverse=True)
    place = {number: best for best, number in enumerate(by_order)}
    begins = sorted(range(len(claims)), key=lambda number: claims[number].start_ns)
    edges = sorted({edge for claim in claims for edge in (claim.start_ns, claim.end_ns)})
    active: list[tuple[int, int]] = []
    begun = 0
    held: tuple[int, int, Any] | None = None
    for start_ns, end_ns in pairwise(edges):
        while begun < len(begins) and claims[begins[begun]].start_ns <= start_ns:
            heapq.heappush(active, (place[begins[begun]], begins[begun]))
            begun += 1
        while active and claims[active[0][1]].end_ns <= start_ns:
            heapq.heappop(active)
        if not active:
            continue
        holder = claims[active[0][1]].holder
        if held is not None and held[1] == start_ns and held[2] == holder:
            held = (held[0], end_ns, holder)
            continue
        if held is not None:
            yield held
        held = (start_ns, end_ns, holder)
    if held is not None:
        yield held


@dataclass(frozen=True, slots=True)
class Owner:
    """Somebody who had an address from `start_ns` to `end_ns`, and maybe from `soft_ns` on.

    `is_strong` tells that the start is known, and not only that of the owner. It was seen to have
    the address from `first` to `last`, and had it at `held_ns`. `name` orders owners that are
    alike; one that `is_doubtful` (it has ended, nobody knows when) has less of a claim than others.
    """

    holder: Any
    name: tuple[Any, ...]
    soft_ns: int
    start_ns: int
    end_ns: int
    first: Seen
    last: Seen
    held_ns: int
    is_strong: bool = False
    is_doubtful: bool = False


def owners_of(
    holder: object,
    history: History[Thing],
    keys_of: Callable[[Thing], Iterable[Any]],
    wanted: Container[Any] | None = None,
) -> Iterator[tuple[Any, Owner]]:
    """Yield what an object had, and its ownership of it; `keys_of` says what a version had.

    With `wanted` only those keys.
    """
    with_it: dict[Any, list[int]] = {}
    for number, span in enumerate(history.spans):
        for key in dict.fromkeys(keys_of(span.thing)):
            with_it.setdefault(key, []).append(number)
    for key, numbers in with_it.items():
        if wanted is not None and key not in wanted:
            continue
        owner = _owner(holder, history, numbers)
        if owner.soft_ns < owner.end_ns:
            yield key, owner


def first_other_span(before: History[Thing], after: History[Thing]) -> int:
    """Return from which span on something that was owned may be owned otherwise."""
    if before.gone != after.gone or before.created_ns != after.created_ns:
        return 0
    pairs = zip(before.spans, after.spans, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] is pair[1], pairs))
    # The last that is the same ends where the next begins.
    since: int = max(same - 1, 0)
    others = _pods((*before.spans[since:], *after.spans[since:]))
    return 0 if any(pod.is_over or pod.ended_ns is not None for pod in others) else since


def holders(owners: Sequence[Owner]) -> Iterator[tuple[int, int, Any]]:
    """Yield (from, to, holder) of something that several owned, in the order of time."""
    if len(owners) == 1:
        only = owners[0]
        yield only.soft_ns, only.end_ns, only.holder
        return
    claims = []
    for owner in _without_older(owners):
        order = (owner.start_ns, *owner.name)
        firm = int(not owner.is_doubtful)
        claims.append(Claim(owner.start_ns, owner.end_ns, (firm, *order), owner.holder))
        soft_end_ns = min(owner.start_ns, owner.end_ns)
        claims.append(Claim(owner.soft_ns, soft_end_ns, (0, *order), owner.holder))
    yield from timeline(claims)


def _owner(holder: object, history: History[Thing], with_it: list[int]) -> Owner:
    spans = [history.spans[number] for number in with_it]
    soft_ns, start_ns, is_strong = _start(history, spans)
    before = history.spans[with_it[0] - 1] if with_it[0] else None
    if before is not None and not _is_exact(spans[0].thing):
        # It was seen without the address first.
        soft_ns = max(soft_ns, before.last.at_ns)
        start_ns = max(start_ns, soft_ns)
    end_ns, is_doubtful = _end(history, spans[-1], with_it[-1])
    thing = history.newest
    return Owner(
        holder=holder,
        name=(thing.namespace, thing.name, thing.uid),
        soft_ns=soft_ns,
        start_ns=start_ns,
        end_ns=end_ns,
        first=spans[0].first,
        last=max(span.last for span in spans),
        held_ns=min(max(start_ns, spans[-1].last.at_ns), end_ns),
        is_strong=is_strong,
        is_doubtful=is_doubtful,
    )


def _is_exact(thing: object) -> bool:
    return isinstance(thing, Pod) and thing.is_exact


def _start(history: History[Thing], spans: list[Span[Thing]]) -> tuple[int, int, bool]:
    """Return from when on it may have been there, and was, and whether the latter is known."""
    created_ns = history.created_ns
    pods = _pods(spans)
    known = [(pod.got_ns, not pod.is_exact) for pod in pods if pod.got_ns is not None]
    starts_ns = [one.start_ns for one in pods if one.start_ns is not None]
    if not known:
        start_ns = min(starts_ns, default=created_ns)
        return start_ns, start_ns, False
    got_ns, is_inexact = min(known)
    soft_ns = min(starts_ns, default=created_ns) if is_inexact else got_ns
    return min(soft_ns, got_ns), got_ns, True


def _pods(spans: Iterable[Span[Any]]) -> list[Pod]:
    return [span.thing for span in spans if isinstance(span.thing, Pod)]


def _end(history: History[Thing], last: Span[Thing], number: int) -> tuple[int, bool]:
    """Return until when it was there, and whether it had ended without telling when."""
    spans = history.spans
    ended = [pod.ended_ns for pod in _pods(spans) if pod.ended_ns is not None]
    end_ns = min(history.gone_ns, ended[-1] if ended else OPEN_END_NS)
    newest = history.newest
    is_doubtful = isinstance(newest, Pod) and newest.is_over and end_ns == OPEN_END_NS
    if number + 1 < len(spans):
        after = spans[number + 1]
        lost_ns = max(after.first.at_ns, last.last.at_ns)
        if isinstance(after.thing, Pod) and after.thing.is_exact and after.thing.got_ns is not None:
            lost_ns = after.thing.got_ns
        # One that has ended has its address no more, and did until it ended.
        if not (isinstance(after.thing, Pod) and after.thing.is_over and ended):
            end_ns = min(end_ns, lost_ns)
    return end_ns, is_doubtful


def _without_older(owners: Sequence[Owner]) -> Iterator[Owner]:
    """End what was seen longer ago where something begins that was not there yet then."""
    for one in owners:
        ends_ns = [_taken_ns(one, newer) for newer in owners if newer.first > one.last]
        end_ns = min([one.end_ns, *ends_ns])
        held_ns = [
            older.held_ns
            for older in owners
            if older.last < one.first and older.start_ns <= one.start_ns and not one.is_strong
        ]
        yield replace(one, start_ns=max([one.start_ns, *held_ns]), end_ns=end_ns)


def _taken_ns(one: Owner, newer: Owner) -> int:
    """Return when a newer owner took over from one that was not seen since."""
    if newer.is_strong and newer.start_ns > one.start_ns:
        return newer.start_ns
    if newer.is_strong and one.is_strong:
        # A Pod whose sandbox is gone shows its old address for a while.
        return OPEN_END_NS
    if newer.end_ns > one.held_ns:
        return max(newer.start_ns, one.held_ns)
    return OPEN_END_NS
