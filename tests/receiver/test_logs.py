"""Log lines: nobody waits for whoever reads them, and what is left out is counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import grpc
from processes import ending, free_port
from recording import DEADLINE_S, FRAMEWALK, StuckPipe, call_of, recorded, stream


def test_nobody_waits_for_whoever_reads_the_log(tmp_path: Path) -> None:
    port, stuck = free_port(), StuckPipe()
    starting = subprocess.Popen(
        [FRAMEWALK, "record", "--port", str(port), "--spool", tmp_path / "spool"],
        env=os.environ | {"SW_CORE_GRPC_HOST": "127.0.0.1", "SW_TELEMETRY": "none"},
        stderr=stuck.writing,
    )
    with ending(starting) as process:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = call_of(channel)
            assert call(iter(stream("a")), timeout=DEADLINE_S, wait_for_ready=True) == b""
        process.terminate()
        assert process.wait(DEADLINE_S) == 0
    assert not stuck.read().strip()
    assert recorded(tmp_path / "spool") == [stream("a")]


TELL_MUCH = """
import logging, sys
from framewalk.engine.telling import tell
from framewalk.server.logs import start_logging

start_logging("json", "info")
for number in range(5_000):
    tell(logging.INFO, "told", number=number)
print("all told", flush=True)
sys.stdin.read()
"""


def test_lines_that_nobody_reads_are_dropped_and_counted() -> None:
    stuck, pipe = StuckPipe(), subprocess.PIPE
    command = [sys.executable, "-c", TELL_MUCH]
    starting = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=stuck.writing)
    with ending(starting) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"all told\n"
        process.stdin.close()
        lines = [json.loads(line) for line in stuck.read().splitlines() if line]
    assert process.returncode == 0
    told = [int(line["number"]) for line in lines if line["event"] == "told"]
    (dropped,) = [int(line["lines"]) for line in lines if "dropped" in line["event"]]
    assert told == list(range(5_000 - dropped))
    assert dropped > 3_000


def test_the_last_lines_of_a_process_are_written() -> None:
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", TELL_MUCH.replace("5_000", "900")],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
        )
        assert done.stderr.count(b"\n") == 900
