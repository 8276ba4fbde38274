"""A recording of a cluster: what a watch says, as lines of JSON that a dump may also be made of."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import IO, TYPE_CHECKING, Any, Final

from framewalk.engine.closing import Closing
from framewalk.engine.kubernetes.documents import KEPT_COLLECTIONS

if TYPE_CHECKING:
    from pathlib import Path

    from framewalk.engine.kubernetes.watch.watching import Kind

_DELETED: Final = "DELETED"


class EntitiesRecorder(Closing):
    """Appends events to a file, as `kubectl get --watch --output-watch-events -o json` prints them.

    Beyond `most_bytes` the file is replaced by one with the objects that there are; what was gone
    by then is in it no more. Objects have the fields that say something about addresses.

    Raises OSError where the file cannot be written.
    """

    def __init__(self, path: Path, most_bytes: int) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._there: dict[tuple[str, str, str], bytes] = {}
        self._lock = threading.Lock()
        self._file: IO[bytes] = path.open("ab")
        self.events = 0
        self.problem: OSError | None = None

    def add(self, kind: Kind, happened: str, item: object) -> None:
        """Append an event, unless it says what the one before said of the same object."""
        if not isinstance(item, dict) or not isinstance(item.get("metadata"), dict):
            return
        event = _event(kind, happened, item)
        metadata = event["object"]["metadata"]
        key = (kind.name, str(metadata.get("namespace")), str(metadata.get("name")))
        line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            if self._there.get(key) == line:
                return
            if happened == _DELETED:
                self._there.pop(key, None)
            else:
                self._there[key] = line
            try:
                self._write(line)
            except OSError as error:
                self.problem = error

    def close(self) -> None:
        """Have all of it on disk."""
        with self._lock:
            self._file.close()

    def _write(self, line: bytes) -> None:
        self._file.write(line)
        self._file.flush()
        self.events += 1
        if self._file.tell() > self._most_bytes:
            self._begin_again()

    def _begin_again(self) -> None:
        partial = self._path.with_name(f"{self._path.name}.partial")
        with partial.open("wb") as file:
            file.writelines(self._there.values())
            file.flush()
            os.fsync(file.fileno())
        self._file.close()
        partial.replace(self._path)
        self._file = self._path.open("ab")
        # What there is may itself be more: it is written again when it has doubled.
        self._most_bytes = max(self._most_bytes, 2 * self._file.tell())


def _event(kind: Kind, happened: str, item: dict[str, Any]) -> dict[str, Any]:
    word, _, group = kind.name.partition(" ")
    kept = _kept(item)
    kept["kind"], kept["apiVersion"] = word, group.strip("()") or "v1"
    if happened == _DELETED and "deletionTimestamp" not in kept["metadata"]:
        kept["metadata"]["deletionTimestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"type": happened, "object": kept}


def _kept(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, list):
        return [_kept(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _kept(one)
        for key, one in value.items()
        if key in KEPT_COLLECTIONS or not isinstance(one, list | dict)
    }
