"""Captures in a store: how far it has each of them, and what was counted."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from framewalk.engine.captures import CapturePosition, capture_path
from framewalk.engine.counters import Counters
from framewalk.engine.store.connection import Connected
from framewalk.engine.store.rows import as_counters

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path


# The capture that has the counters of all captures that were forgotten.
FORGOTTEN: Final = 0
_FORGOTTEN_PATH: Final = "(forgotten captures)"
# A row per element of the lists: cheaper for few rows than registering a frame.
_INSERT_POSITIONS: Final = (
    "INSERT INTO internal.positions "
    "SELECT ?, unnest(?::BIGINT[]), unnest(?::BIGINT[]), unnest(?::VARCHAR[])"
)
_INSERT_COUNTERS: Final = (
    "INSERT INTO internal.counters "
    "SELECT ?, unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), unnest(?::BIGINT[])"
)
_INSERT_HELD: Final = "INSERT INTO internal.held SELECT ?, unnest(?::BIGINT[]), unnest(?::BIGINT[])"
_CHOSEN: Final = "capture IN (SELECT unnest($captures::BIGINT[]))"
_CHOSEN_ID: Final = "id IN (SELECT unnest($captures::BIGINT[]))"


class HeldPiece(NamedTuple):
    """A record batch of a capture, by its place there, that is to be counted later."""

    begin_bytes: int
    end_bytes: int


class Reached(NamedTuple):
    """How far a commit comes in one capture.

    `capture` is None for one that the store does not know; `positions` are the ends of the
    record batches that the commit covers, in order. Of what is before the last of them `held` is
    what is still not in the store.
    """

    capture: int | None
    path: Path
    positions: Sequence[CapturePosition]
    held: Sequence[HeldPiece] = ()


class StoredCaptures(Connected):
    """The captures of a store."""

    def captures(self) -> dict[int, CapturePosition]:
        """Return the end of the first record batch of each capture in the store, by its id."""
        rows = self.run(
            "SELECT capture, offset_bytes, messages, digest FROM internal.positions "
            "QUALIFY row_number() OVER (PARTITION BY capture ORDER BY offset_bytes) = 1"
        )
        return {capture: CapturePosition(*position) for capture, *position in rows}

    def ends_at(self, paths: Collection[Path]) -> dict[Path, tuple[int, CapturePosition]]:
        """Return the captures that were read at these paths: their ids and last positions."""
        named = {str(path): path for path in paths}
        rows = self.run(
            "SELECT path, capture, offset_bytes, messages, digest FROM internal.positions JOIN "
            "(SELECT path, max(id) AS capture FROM internal.captures "
            "WHERE path IN (SELECT unnest(?::VARCHAR[])) GROUP BY path) USING (capture) "
            "QUALIFY row_number() OVER (PARTITION BY capture ORDER BY offset_bytes DESC) = 1",
            [[*named]],
        )
        return {
            named[path]: (capture, CapturePosition(*position)) for path, capture, *position in rows
        }

    def newest(self) -> int:
        """Return the highest id of a capture; 0 where there is none."""
        return int(self.run("SELECT coalesce(max(id), 0) FROM internal.captures")[0][0])

    def end_of_alike(
        self, begin: CapturePosition, newest: int
    ) -> tuple[int, CapturePosition] | None:
        """Return a capture up to `newest` with this position: its id and its last position.

        Of several it is the one that goes furthest.
        """
        rows = self.run(
            "SELECT capture, offset_bytes, messages, digest FROM internal.positions "
            "WHERE capture IN (SELECT capture FROM internal.positions "
            "WHERE offset_bytes = ? AND digest = ? AND capture <= ?) "
            "ORDER BY offset_bytes DESC LIMIT 1",
            [begin.offset_bytes, begin.digest, newest],
        )
        return next(((capture, CapturePosition(*end)) for capture, *end in rows), None)

    def positions(self, capture: int) -> frozenset[CapturePosition]:
        """Return the ends of all record batches of a capture that are in the store."""
        rows = self.run(
            "SELECT offset_bytes, messages, digest FROM internal.positions WHERE capture = ?",
            [capture],
        )
        return frozenset(CapturePosition(*position) for position in rows)

    def held(self, captures: Collection[int]) -> dict[int, frozenset[HeldPiece]]:
        """Return what captures have before their last position that is not in the store.

        Those that have nothing are not in the result.
        """
        rows = self.run(
            f"SELECT capture, begin_bytes, end_bytes FROM internal.held WHERE {_CHOSEN}",
            {"captures": list(captures)},
        )
        found: dict[int, set[HeldPiece]] = {}
        for capture, begin_bytes, end_bytes in rows:
            found.setdefault(capture, set()).add(HeldPiece(begin_bytes, end_bytes))
        return {capture: frozenset(pieces) for capture, pieces in found.items()}

    def paths(self, before_name: str | None = None) -> dict[int, Path]:
        """Return where each capture in the store was read, by its id.

        With `before_name` only those whose file's name sorts before it.
        """
        rows = self.run(
            "SELECT id, path FROM internal.captures "
            "WHERE id <> $forgotten AND ($before IS NULL OR parse_filename(path) < $before)",
            {"forgotten": FORGOTTEN, "before": before_name},
        )
        return {capture: capture_path(path) for capture, path in rows}

    def count(self, counted: Sequence[tuple[str, str, int]]) -> None:
        """Add (kind, name, count) to what was counted of captures that were forgotten.

        To be called in a transaction.
        """
        if not counted:
            return
        columns = ([row[at] for row in counted] for at in range(3))
        self.run(_INSERT_COUNTERS, [FORGOTTEN, *columns])
        self._add_up_counters(f"{FORGOTTEN}", {"captures": [FORGOTTEN]})

    def counted(self) -> Counters:
        """Return what was counted of all captures."""
        return self._counters_of("true")

    def counted_of_forgotten(self) -> Counters:
        """Return what was counted of captures that are not known any more."""
        return self._counters_of(f"capture = {FORGOTTEN}")

    def _counters_of(self, condition: str) -> Counters:
        sums = (
            "SELECT kind, name, sum(count)::BIGINT FROM internal.counters "
            f"WHERE {condition} GROUP BY ALL"
        )
        found: dict[str, Counter[str]] = {}
        for kind, name, count in self.run(sums):
            found.setdefault(kind, Counter())[name] = count
        named = [found.get(kind, Counter()) for kind in ("dropped", "quality", "addresses")]
        messages, logs = (found.get(kind, Counter())[""] for kind in ("messages", "logs"))
        return Counters(messages, logs, *named)

    def finish(self, *captures: int) -> None:
        """Keep the first and the last position of captures to which nothing will be added.

        Their counters are added up. A whole copy of such a capture is recognised, one that was
        cut off is not.
        """
        if not captures:
            return
        chosen = {"captures": list(captures)}
        with self.transaction():
            self.run(
                "DELETE FROM internal.positions "
                f"USING (SELECT capture AS finished, min(offset_bytes) AS first, "
                f"max(offset_bytes) AS last FROM internal.positions WHERE {_CHOSEN} GROUP BY 1) "
                "WHERE capture = finished AND offset_bytes NOT IN (first, last)",
                chosen,
            )
            self._add_up_counters("capture", chosen)

    def forget(self, captures: Collection[int]) -> None:
        """Remove captures that are gone; their counters are added to those of capture 0.

        What they counted stays. A copy of such a capture would be counted again.
        """
        if not captures:
            return
        chosen = {"captures": [FORGOTTEN, *captures]}
        with self.transaction():
            self._add_up_counters(f"{FORGOTTEN}", chosen)
            self.run(f"DELETE FROM internal.positions WHERE {_CHOSEN}", chosen)
            self.run(f"DELETE FROM internal.held WHERE {_CHOSEN}", chosen)
            self.run(f"DELETE FROM internal.captures WHERE {_CHOSEN_ID}", chosen)
            self.run("INSERT INTO internal.captures VALUES (?, ?)", [FORGOTTEN, _FORGOTTEN_PATH])

    def _write_positions(self, reached: Reached, *, ends_only: bool) -> int:
        capture, path, positions, held = reached
        if ends_only:
            first = positions[:1] if capture is None else ()
            positions = [*first, *positions[len(first) :][-1:]]
        if capture is None:
            capture = self._new_capture(path)
        else:
            self.run("DELETE FROM internal.held WHERE capture = ?", [capture])
        if held:
            begins, ends = ([piece[at] for piece in held] for at in range(2))
            self.run(_INSERT_HELD, [capture, begins, ends])
        columns = [
            [one.offset_bytes for one in positions],
            [one.messages for one in positions],
            [one.digest for one in positions],
        ]
        self.run(_INSERT_POSITIONS, [capture, *columns])
        return capture

    def _write_counters(self, capture: int, counters: Counters) -> None:
        rows = as_counters(counters)
        columns = ([row[at] for row in rows] for at in range(3))
        self.run(_INSERT_COUNTERS, [capture, *columns])

    def _new_capture(self, path: Path) -> int:
        rows = self.run(
            "INSERT INTO internal.captures SELECT coalesce(max(id), 0) + 1, ? "
            "FROM internal.captures RETURNING id",
            [str(path)],
        )
        return int(rows[0][0])

    def _add_up_counters(self, capture: str, chosen: Mapping[str, list[int]]) -> None:
        """Replace the counters of chosen captures by their sums, under `capture` (SQL)."""
        sums = (
            f"CREATE OR REPLACE TEMP TABLE sums AS SELECT {capture} AS capture, kind, name, "
            f"sum(count)::BIGINT AS count FROM internal.counters WHERE {_CHOSEN} GROUP BY ALL"
        )
        self.run(sums, chosen)
        self.run(f"DELETE FROM internal.counters WHERE {_CHOSEN}", chosen)
        self.run("INSERT INTO internal.counters BY NAME FROM sums")
        self.run("DROP TABLE sums")
