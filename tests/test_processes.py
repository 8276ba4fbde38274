"""What Linux tells of processes, as the limits of attempts take it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

from processes import ending

from framewalk.engine.processes import Used, used_by

BUSY = "import os; os.sched_setaffinity(0, {%d}); print(flush=True)\nwhile True: pass"
DEADLINE_S = 300


def started(stack: ExitStack, program: str) -> int:
    """Start a process that ends with the test, and wait until it says that it is there."""
    command = [sys.executable, "-c", program]
    process = stack.enter_context(ending(subprocess.Popen(command, stdout=subprocess.PIPE)))
    stack.callback(process.kill)
    assert process.stdout is not None
    process.stdout.readline()
    return process.pid


def used(process: int) -> Used:
    told = used_by(process)
    assert told is not None
    return told


def test_who_gets_no_processor_queues_and_who_is_stopped_does_not() -> None:
    processor = min(os.sched_getaffinity(0))
    with ExitStack() as stack:
        stopped, *busy = (started(stack, BUSY % processor) for _ in range(3))
        os.kill(stopped, signal.SIGSTOP)
        os.waitpid(stopped, os.WUNTRACED)
        before_s = used(stopped).queued_s
        ends_s = time.monotonic() + DEADLINE_S
        while min(used(one).queued_s for one in busy) < 0.5:
            assert time.monotonic() < ends_s
        assert used(stopped).queued_s == before_s
    assert used_by(busy[0]) is None
