"""A whole cluster, watched in a thread: its inventory as of now."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from framewalk.engine.closing import Closing
from framewalk.engine.kubernetes.inventory import (
    REMEMBERED_S,
    EndpointSlice,
    Inventory,
    Node,
    Pod,
    Seen,
    Service,
    Sighting,
    identity_of,
    place_of,
)
from framewalk.engine.kubernetes.watch.connection import ClusterAccess, Connection
from framewalk.engine.kubernetes.watch.watching import KINDS, Kind, KindWatch
from framewalk.engine.telling import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from framewalk.engine.errors import EntitiesError
    from framewalk.engine.kubernetes.inventory import History, Identity

# Objects that are gone and remembered: some 5 KB each, with their part of the table.
_MOST_GONE: Final = 10_000
_MOST_OBJECTS: Final = 300_000
_FORGET_EVERY_NS: Final = 60 * 10**9
_LOOK_EVERY_S: Final = 1
_MOST_ODD: Final = 20


class Changes(NamedTuple):
    """What is known of objects that changed; None: nothing more.

    `lists` has when all objects of a kind were listed, first and last, by what they are made into;
    `listed` are those kinds that were listed again.
    """

    histories: dict[Identity, History[Any] | None]
    lists: Mapping[type, Sequence[Seen]]
    listed: set[type]


class ClusterWatch(Closing):
    """What is known of a cluster, from its API server, as long as this is open.

    What was known stays while the server is away, which is told when it begins and when it is over.
    Each object is also given to `on_event` as it was sent, with its kind and what happened (as in a
    watch), in the thread of the watch; of one that is missed in a list, its metadata. `on_change`
    is called there when `take_changes` has something.

    Raises EntitiesError where there is no client, or no configuration that can be used.
    """

    def __init__(
        self,
        access: ClusterAccess,
        on_event: Callable[[Kind, str, object], None] | None = None,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self._access = access
        self._on_event = on_event
        self._on_change = on_change
        self._known: dict[Identity, History[Any]] = {}
        self._gone: dict[Identity, int] = {}
        self._forgot_ns = time.time_ns()
        self._changed: set[Identity] = set()
        self._just_listed: set[type] = set()
        self._odd: dict[str, None] = {}
        self._lists: dict[type, tuple[Seen, ...]] = {}
        self._trouble = Trouble(
            "cluster is not watched, what was known stays", "cluster is watched again"
        )
        self._problems: dict[Kind, str] = {}
        self._up: set[Kind] = set()
        self._lock = threading.Lock()
        self._is_listed = threading.Event()
        # What cannot work at all is said at once.
        unused = Connection(access)
        asyncio.run(unused.close())
        self._loop = asyncio.new_event_loop()
        self._main: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._work, name="kubernetes", daemon=True)
        self._thread.start()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why objects are left out, some of them."""
        with self._lock:
            return tuple(self._odd)

    @property
    def problem(self) -> str:
        """Why a kind is not watched, empty where all are."""
        return next(iter(list(self._problems.values())), "")

    @property
    def is_up(self) -> bool:
        """Whether all kinds are being watched."""
        return len(self._up) == len(KINDS)

    def take_changes(self, *, again: bool = False) -> Changes:
        """Return what has changed since this was called last; `again`: all that is known."""
        with self._lock:
            changed = self._known.keys() | self._changed if again else self._changed
            listed = set(self._lists) if again else self._just_listed
            self._changed, self._just_listed = set(), set()
            histories = {one: self._known.get(one) for one in changed}
            return Changes(histories, dict(self._lists), listed)

    def wait_listed(self, timeout_s: float) -> bool:
        """Wait until all kinds have been listed once; returns whether they have."""
        return self._is_listed.wait(timeout_s)

    def inventory(self) -> Inventory:
        """Return what is known, and what was lately."""
        with self._lock:
            known = list(self._known.values())
        kinds: dict[type, list[Any]] = {Pod: [], Service: [], EndpointSlice: [], Node: []}
        for one in sorted(known, key=place_of):
            kinds[type(one.newest)].append(one)
        return Inventory(*(tuple(histories) for histories in kinds.values()))

    def close(self) -> None:
        """Stop watching."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._cancel)
            self._thread.join(timeout=10)

    # In the thread.

    def _cancel(self) -> None:
        if self._main is not None:
            self._main.cancel()

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._main = self._loop.create_task(self._watch_all())
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._main)
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _watch_all(self) -> None:
        connect = partial(Connection, self._access)
        watches = (KindWatch(kind, connect, self, self._access.timing).run() for kind in KINDS)
        await asyncio.gather(*watches, self._look_now_and_then())

    async def _look_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if self.is_up:
                self._trouble.is_over()
            now_ns = time.time_ns()
            if now_ns - self._forgot_ns >= _FORGET_EVERY_NS:
                self._forgot_ns = now_ns
                self._forget(now_ns)

    # What KindWatch tells.

    def listed(self, kind: Kind, seen: Seen, sightings: list[Sighting[Any]]) -> None:
        """Take all objects of a kind; what is missed among them is gone by then."""
        there = {identity_of(one.thing) for one in sightings}
        missed = []
        with self._lock:
            if kind.made in self._lists and seen.version < self._newest(kind):
                # Another cluster, or one that was restored: versions from before say nothing.
                self._forget_versions(kind)
                del self._lists[kind.made]
            for key, history in self._known.items():
                if key[0] is kind.made and key not in there and history.gone is None:
                    missed.append(Sighting(seen, history.newest, is_gone=True))
        for one in (*sightings, *missed):
            self.saw(one)
        for thing in (one.thing for one in missed):
            metadata = {"namespace": thing.namespace, "name": thing.name, "uid": thing.uid}
            metadata["resourceVersion"] = str(seen.version)
            self.heard(kind, "DELETED", {"metadata": metadata})
        with self._lock:
            # What is known from elsewhere, and not in the list, is gone: also of an empty one.
            self._lists[kind.made] = (*self._lists.get(kind.made, ())[:1], seen)
            self._just_listed.add(kind.made)
            if len(self._lists) == len(KINDS):
                self._is_listed.set()
        self._has_changed()

    def saw(self, sighting: Sighting[Any]) -> None:
        """Take an object that has come, changed or gone."""
        key = identity_of(sighting.thing)
        with self._lock:
            history = self._known.get(key)
            if history is None and len(self._known) >= _MOST_OBJECTS:
                self._note(f"more than {_MOST_OBJECTS:,} objects, the others are left out")
                return
            if history is None:
                (made,) = Inventory.of([sighting]).histories
            else:
                made = history.seeing(sighting)
            self._known[key] = made
            self._changed.add(key)
            if made.gone is None:
                self._gone.pop(key, None)
            else:
                self._gone[key] = made.gone.at_ns
        self._has_changed()
        if len(self._gone) > _MOST_GONE:
            self._forget(time.time_ns())

    def heard(self, kind: Kind, happened: str, item: object) -> None:
        """Hand on an object as it was sent."""
        if self._on_event is not None:
            self._on_event(kind, happened, item)

    def is_odd(self, kind: Kind, problem: EntitiesError) -> None:
        """Keep why an object is left out."""
        del kind
        with self._lock:
            self._note(f"{problem}; this object is left out")

    def came_up(self, kind: Kind) -> None:
        """Learn that a kind is watched."""
        self._up.add(kind)
        self._problems.pop(kind, None)

    def went_down(self, kind: Kind, problem: str) -> None:
        """Tell why a kind is not watched."""
        self._up.discard(kind)
        self._problems[kind] = problem
        self._trouble.goes_on(next(iter(self._problems.values())))

    def _has_changed(self) -> None:
        if self._on_change is not None:
            self._on_change()

    def _note(self, problem: str) -> None:
        if len(self._odd) < _MOST_ODD and problem not in self._odd:
            self._odd[problem] = None
            self._has_changed()

    def _newest(self, kind: Kind) -> int:
        spans = (one.spans[-1] for key, one in self._known.items() if key[0] is kind.made)
        return max((span.last.version for span in spans), default=-1)

    def _forget_versions(self, kind: Kind) -> None:
        for key, history in self._known.items():
            if key[0] is kind.made:
                spans = tuple(
                    replace(
                        span,
                        first=span.first._replace(version=-1),
                        last=span.last._replace(version=-1),
                        version=-1,
                    )
                    for span in history.spans
                )
                gone = history.gone._replace(version=-1) if history.gone is not None else None
                self._known[key] = replace(history, spans=spans, gone=gone)
                self._changed.add(key)

    def _forget(self, now_ns: int) -> None:
        """Forget what has long been gone, and the oldest of what is too much."""
        with self._lock:
            by_age = sorted(self._gone, key=self._gone.__getitem__)
            too_many = max(len(by_age) - _MOST_GONE * 9 // 10, 0)
            for place, key in enumerate(by_age):
                if place >= too_many and self._gone[key] > now_ns - REMEMBERED_S * 10**9:
                    break
                del self._gone[key], self._known[key]
                self._changed.add(key)
        self._has_changed()
