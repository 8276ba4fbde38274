"""One kind of objects, listed and then watched, for ever."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from framewalk.engine.errors import EntitiesError
from framewalk.engine.kubernetes.documents import Field
from framewalk.engine.kubernetes.inventory import (
    OPEN_START_NS,
    EndpointSlice,
    Node,
    Pod,
    Seen,
    Service,
    Sighting,
)
from framewalk.engine.kubernetes.objects import Read, read_object
from framewalk.engine.kubernetes.watch.connection import ApiError, Connection, GoneError, parsed

if TYPE_CHECKING:
    from collections.abc import Callable

    from framewalk.engine.kubernetes.inventory import AnyThing
    from framewalk.engine.kubernetes.watch.connection import Timing

_PAGE_OBJECTS: Final = 500
_GONE: Final = 410
# Answered watches that fail in a row before all is listed again, whatever they say.
_MOST_FAILURES: Final = 3
# A watch that was open for so long has worked.
_WORKED_S: Final = 1.0
# What comes so soon after a watch was taken up again may have happened while it was cut.
_BACKLOG_S: Final = 1.0
_NS_PER_S: Final = 10**9
_PLACE: Final = Path("the cluster")


class Kind(NamedTuple):
    """A kind of objects, and where they are listed and watched."""

    name: str
    path: str
    made: type[AnyThing]


KINDS: Final = (
    Kind("Pod", "api/v1/pods", Pod),
    Kind("Service", "api/v1/services", Service),
    Kind(
        "EndpointSlice (discovery.k8s.io/v1)",
        "apis/discovery.k8s.io/v1/endpointslices",
        EndpointSlice,
    ),
    Kind("Node", "api/v1/nodes", Node),
)


class Sink(Protocol):
    """Who takes what is seen of a kind."""

    def listed(self, kind: Kind, seen: Seen, sightings: list[Sighting[Any]]) -> None:
        """Take all that there are."""

    def saw(self, sighting: Sighting[Any]) -> None:
        """Take one that has come, changed or gone."""

    def heard(self, kind: Kind, happened: str, item: object) -> None:
        """Take an object as it was sent."""

    def is_odd(self, kind: Kind, problem: EntitiesError) -> None:
        """Take why an object is left out."""

    def came_up(self, kind: Kind) -> None:
        """Learn that it is watched."""

    def went_down(self, kind: Kind, problem: str) -> None:
        """Learn why it is not."""


class KindWatch:
    """Lists a kind and watches it, and begins again whatever happens; ends when cancelled."""

    def __init__(
        self, kind: Kind, connect: Callable[[], Connection], sink: Sink, timing: Timing
    ) -> None:
        self._kind = kind
        self._connect = connect
        self._sink = sink
        self._timing = timing
        self._version = ""
        self._failures = 0
        self._pause_s: float = 0

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                # A new one reads credentials and addresses again.
                connection = self._connect()
            except EntitiesError as error:
                await self._failed(str(error))
                continue
            try:
                await self._work(connection)
            except GoneError:
                # Listed at once, but not for ever.
                self._version = ""
                await self._rest()
            except ApiError as error:
                self._failures += error.is_answer
                await self._failed(str(error))
            finally:
                await connection.close()
            if self._failures >= _MOST_FAILURES:
                self._failures = 0
                self._version = ""

    async def _work(self, connection: Connection) -> None:
        while True:
            if not self._version:
                await self._list(connection)
            started_s = time.monotonic()
            await self._watch(connection)
            if time.monotonic() - started_s < _WORKED_S:
                # A server that ends watches at once is not asked again at once.
                await self._rest()

    async def _failed(self, problem: str) -> None:
        # One that is cut and taken up again at once is nothing to tell.
        if self._pause_s:
            self._sink.went_down(self._kind, problem)
        await self._rest()

    async def _rest(self) -> None:
        if self._pause_s:
            await asyncio.sleep(self._pause_s * random.uniform(0.75, 1))  # noqa: S311
        longer_s = max(self._pause_s * 2, self._timing.first_pause_s)
        self._pause_s = min(longer_s, self._timing.longest_pause_s)

    def _works(self) -> None:
        self._pause_s = 0
        self._failures = 0

    async def _list(self, connection: Connection) -> None:
        seen_ns = time.time_ns()
        sightings: list[Sighting[Any]] = []
        parameters = {"limit": str(_PAGE_OBJECTS)}
        while True:
            page = await connection.get(self._kind.path, parameters)
            metadata = _mapping(_mapping(page).get("metadata"))
            version = str(metadata.get("resourceVersion") or "")
            seen = Seen(_number(version), seen_ns)
            for item in _mapping(page).get("items") or ():
                read = self._read(item)
                self._sink.heard(self._kind, "ADDED", item)
                if read is not None:
                    sightings.append(Sighting(seen, read.thing, read.version))
            parameters["continue"] = str(metadata.get("continue") or "")
            if not parameters["continue"]:
                break
            # Others have their turn between two pages.
            await asyncio.sleep(0)
        if not version:
            problem = f"{self._kind.path}: the list has no resourceVersion"
            raise ApiError(problem, is_answer=True)
        self._sink.listed(self._kind, seen, sightings)
        self._version = version

    async def _watch(self, connection: Connection) -> None:
        parameters = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(max(int(self._timing.watch_s), 1)),
        }
        async with connection.lines(self._kind.path, parameters) as lines:
            self._sink.came_up(self._kind)
            opened_s = time.monotonic()
            async for line in lines:
                if line.strip():
                    is_backlog = time.monotonic() - opened_s < _BACKLOG_S
                    self._take(_mapping(parsed(line, self._kind.path)), is_backlog=is_backlog)
                    self._works()
        if time.monotonic() - opened_s >= _WORKED_S:
            self._works()

    def _take(self, event: dict[str, Any], *, is_backlog: bool) -> None:
        happened, item = event.get("type"), event.get("object")
        if happened == "ERROR":
            self._refuse(_mapping(item))
        version = _mapping(_mapping(item).get("metadata")).get("resourceVersion")
        if happened in ("ADDED", "MODIFIED", "DELETED"):
            read = self._read(item)
            self._sink.heard(self._kind, happened, item)
            if read is not None:
                self._sink.saw(_sighting(read, happened == "DELETED", is_backlog))
        if isinstance(version, str) and version:
            self._version = version

    def _refuse(self, status: dict[str, Any]) -> None:
        problem = f"{self._kind.path}: {status.get('code')} {status.get('message')}"[:200]
        if status.get("code") == _GONE:
            raise GoneError(problem, is_answer=True)
        raise ApiError(problem, is_answer=True)

    def _read(self, item: object) -> Read | None:
        metadata = _mapping(_mapping(item).get("metadata"))
        name = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}".strip("/")
        word = self._kind.name.partition(" ")[0]
        try:
            return read_object(self._kind.name, Field(_PLACE, f"{word} {name}", "", item))
        except EntitiesError as error:
            self._sink.is_odd(self._kind, error)
            return None


def _sighting(read: Read, is_gone: bool, is_backlog: bool) -> Sighting[Any]:  # noqa: FBT001
    """Return what an event shows; one of a backlog happened some time before now."""
    now_ns = time.time_ns()
    if is_backlog and not is_gone and read.latest_ns != OPEN_START_NS:
        now_ns = min(read.latest_ns, now_ns)
    return Sighting(Seen(read.version, now_ns), read.thing, read.version, is_gone)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(version: str) -> int:
    return int(version) if version.isascii() and version.isdigit() else -1
