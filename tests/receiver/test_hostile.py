"""Messages with anything wrong in them cost themselves; `make hostile` sends a million."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
from batches import as_batch
from hostile import attack
from hostile_messages import Hostile

from framewalk.engine.stages.decoding import decode


def test_hostile_messages_cost_themselves(tmp_path: Path) -> None:
    seen = attack(tmp_path, 6_000, seed=4, stream_messages=200)
    assert seen.hostile_streams == 30
    assert seen.honest_streams >= 2
    assert seen.bad_input["undecodable_message"] > 2_000


def test_what_is_decoded_of_a_message_does_not_depend_on_those_beside_it() -> None:
    now_s = int(time.time())
    # Groups that end as others do: no protobuf, and the decoder takes them.
    messages = [b"\x13\x0c", *Hostile(5, now_s).stream(400), b"\x13\x0c", b"\x13"]
    rows = [(1, at, now_s, message) for at, message in enumerate(messages)]
    together = [
        at
        for batch in decode(pa.Table.from_batches([as_batch(rows)]))
        for at in batch.captured["seq"].to_pylist()
    ]
    alone = [row[1] for row in rows if is_decoded(row)]
    assert together == alone
    assert 100 < len(alone) < 300
    assert {0, 401} < set(alone)


def is_decoded(row: tuple[int, int, int, bytes]) -> bool:
    (batch,) = decode(pa.Table.from_batches([as_batch([row])]))
    return batch.captured.num_rows == 1
