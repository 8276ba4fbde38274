"""A capture in several, each of whole streams."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa

from framewalk.engine import CaptureReader, CaptureWriter


def in_parts(capture: Path, count: int) -> list[Path]:
    """Write so many captures beside one, whose streams are of each in turn, shuffled."""
    with CaptureReader(capture) as reader:
        messages = pa.Table.from_batches([batch.messages for batch in reader])
    stream = pl.Series(messages["stream"])
    streams = stream.unique(maintain_order=True).shuffle(seed=1)
    paths = []
    for number in range(count):
        own = stream.is_in(streams.gather_every(count, number).implode())
        paths.append(capture.with_name(f"part{number}.capture.arrows"))
        with CaptureWriter(paths[-1]) as writer:
            for batch in messages.filter(own.to_arrow()).to_batches():
                writer.write(batch)
    return paths
