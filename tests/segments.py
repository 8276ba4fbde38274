"""Segments of a spool, as tests write them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from framewalk.engine.captures.format import CAPTURE_SCHEMA, DIGEST_KEY, batch_digest


class Segments:
    """Writes segments as a spool does, as far as it is told."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 10**18
        self._open()

    def _open(self) -> None:
        self._number += 1
        path = self._folder / f"{self._number:020d}.capture.arrows"
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_stream(self._sink, CAPTURE_SCHEMA)

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch, custom_metadata={DIGEST_KEY: batch_digest(batch)})
        self._sink.flush()

    def turn(self, *, is_torn: bool) -> None:
        """Begin a new segment; a torn one has no end marker, and half a batch."""
        if is_torn:
            self._sink.write(b"\xff\xff\xff\xff\x10\0\0")
            self._sink.close()
        else:
            self.close()
        self._open()

    def close(self) -> None:
        self._writer.close()
        self._sink.close()
