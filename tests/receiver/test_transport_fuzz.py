"""Bytes with something wrong in them: FRAMEWALK_FUZZ_INPUTS says how many inputs are sent."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from http2_client import framed, raw_frame
from recording import (
    Server,
    on_uvicorn,
    wait_until,
)
from unharmed import (
    MIB,
    PREFACE,
    SETTINGS,
    memory_bytes,
    others_unharmed,
    request_headers,
    send_and_read,
)

pytest_plugins = ["servers"]

FUZZ_INPUTS = int(os.environ.get("FRAMEWALK_FUZZ_INPUTS", "1500"))


# One path that is not UTF-8 makes grpcio's asyncio server (1.85.1) stop listening for good.
@on_uvicorn
def test_garbage_and_mutated_requests(server: Server) -> None:
    fuzzer = Fuzzer(random.Random(20_260_302))  # noqa: S311 - seeded on purpose
    with others_unharmed(server), ThreadPoolExecutor(4) as senders:
        list(senders.map(lambda one: send_and_read(server, one), fuzzer.inputs(200)))
        before_bytes = memory_bytes(server)
        list(senders.map(lambda one: send_and_read(server, one), fuzzer.inputs(FUZZ_INPUTS)))
    assert memory_bytes(server) - before_bytes < 20 * MIB
    wait_until(lambda: server.metrics()["framewalk_open_streams"] == 0)
    assert server.metrics()["framewalk_in_flight_bytes"] == 0
    told = "".join(server.lines)
    assert "Traceback" not in told
    assert "failed" not in told


class Fuzzer:
    """Requests with something wrong in them."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._block = request_headers()

    def inputs(self, count: int) -> Iterator[bytes]:
        kinds = (self._garbage, self._foreign_frames, self._shuffled, self._changed, self._changed)
        for _ in range(count):
            yield self._chance.choice(kinds)()

    def _garbage(self) -> bytes:
        begin = self._chance.choice([b"", PREFACE, PREFACE[:12], b"\x16\x03\x01", b"GET / HTTP/1"])
        return begin + self._chance.randbytes(self._chance.randrange(500))

    def _frames(self) -> list[bytes]:
        frames = [SETTINGS]
        for number in range(1, 2 * self._chance.randrange(1, 5), 2):
            frames.append(raw_frame(1, 4, number, self._block))
            for _ in range(self._chance.randrange(4)):
                content = framed(b"fuzz " + self._chance.randbytes(self._chance.randrange(100)))
                frames.append(raw_frame(0, self._chance.choice([0, 0, 0, 1, 8]), number, content))
        return frames

    def _foreign_frames(self) -> bytes:
        frames = self._frames()
        for _ in range(self._chance.randrange(1, 5)):
            frames.insert(self._chance.randrange(len(frames) + 1), self._foreign_frame())
        return PREFACE + b"".join(frames)

    def _foreign_frame(self) -> bytes:
        chance = self._chance
        size = chance.choice([0, 1, 4, 5, 6, 8, 9, 100, 16_384])
        content = chance.choice([bytes(size), chance.randbytes(size), b"\xff" * size])
        number = chance.choice([0, 1, 2, 3, 5, 99, 2**31 - 1, 2**32 - 1])
        frame = raw_frame(chance.randrange(12), chance.randrange(256), number, content)
        told_size = chance.choice([size, size, size, 0, size + 1, 2**24 - 1])
        return struct.pack(">I", told_size)[1:] + frame[3:]

    def _shuffled(self) -> bytes:
        frames = self._frames()
        self._chance.shuffle(frames)
        return PREFACE + b"".join(frames)

    def _changed(self) -> bytes:
        content = bytearray(PREFACE + b"".join(self._frames()))
        for _ in range(self._chance.randrange(1, 8)):
            place = self._chance.randrange(len(PREFACE), len(content))
            kind = self._chance.randrange(3)
            if kind == 0:
                content[place] = self._chance.randrange(256)
            elif kind == 1:
                del content[place : place + self._chance.randrange(1, 20)]
            else:
                content[place:place] = self._chance.randbytes(self._chance.randrange(1, 20))
            content += bytes(max(len(PREFACE) + 1 - len(content), 0))
        return bytes(content)
