"""The engine process as its parent sees it: started, watched, started again, asked to finish."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from framewalk.engine.errors import FramewalkError
from framewalk.engine.telling import Trouble, tell
from framewalk.server.engine.link import FINISH, READ_ENTITIES, EngineStatus
from framewalk.server.engine.memory import resident_bytes
from framewalk.server.engine.queries import QueryWatch

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Sequence

    from framewalk.server.engine.link import EngineOptions

_COMMAND: Final = (sys.executable, "-P", "-m", "framewalk.server.engine.process")
# Batches are too small for more threads to save time; they cost CPU time and memory.
_ENVIRONMENT: Final = {"POLARS_MAX_THREADS": "1"}
_FIRST_DELAY_S: Final = 0.5
_LONGEST_DELAY_S: Final = 30
# An engine that has worked for this long has not died of what the one before died of.
_HEALTHY_S: Final = 60
_LONGEST_LINE_BYTES: Final = 1 << 20
# It tells its status after each look and each commit; longer than any of them takes.
_LONGEST_SILENCE_S: Final = 600
# How long the system may take to end a process.
_EXIT_S: Final = 10
# A query can take a gigabyte in a second.
_MEMORY_EVERY_S: Final = 0.1


class EngineError(FramewalkError):
    """The engine cannot work, and said why."""


class EngineChild:
    """Keeps one engine process running.

    `status` is what it told last; `restarts` counts how often it had to be started again. One
    that has begun and then tells nothing for `longest_silence_s` and a flush interval hangs: it is
    killed, and started again. So is one that grows too large while a query runs, or that ended
    itself for a query; the next then starts without delay, and refuses that query for a while.
    """

    def __init__(
        self, options: EngineOptions, longest_silence_s: float = _LONGEST_SILENCE_S
    ) -> None:
        self.status = EngineStatus()
        self.restarts = 0
        self.is_up = False
        self.watermark_s = 0.0
        self.started_s = time.time()
        self._options = options
        self._longest_silence_s = longest_silence_s + options.flush_interval_s
        self._process: Process | None = None
        self._finishing = False
        # Once the configuration was seen to be of use, the engine is started again and again.
        self._goes_on = False
        self._trouble = Trouble("store cannot be opened, what comes is kept only", "store is open")
        self._queries = QueryWatch(options.memory_bytes)
        self._was_ended = False

    @property
    def lag_s(self) -> float:
        """For how long received messages wait for their commit at most, in seconds."""
        return max(time.time() - (self.watermark_s or self.started_s), 0)

    async def run(self) -> None:
        """Keep an engine running until `finish`.

        Raises EngineError where the first one says that it cannot work: a definition is wrong, a
        port is in use. Whatever else ends an engine, receiving goes on; also without a store.
        """
        delay_s = _FIRST_DELAY_S
        while True:
            started_s = time.monotonic()
            try:
                exit_code: int | str = await self._run_once()
            except (OSError, ValueError) as error:
                # No process or no descriptor is left, it does not end, or a line has no end.
                exit_code = str(error)
            if self._finishing:
                return
            if self.status.is_switching:
                self.status = replace(self.status, is_switching=False)
                continue
            is_closed = self._is_store_closed()
            if self.status.error and not self._goes_on:
                raise EngineError(self.status.error)
            if self._was_ended:
                self.restarts += 1
                continue
            if time.monotonic() - started_s >= _HEALTHY_S:
                delay_s = _FIRST_DELAY_S
            if not is_closed:
                facts = {"exit_code": exit_code, "error": self.status.error, "delay_s": delay_s}
                tell(logging.ERROR, "engine died, it is started again", **facts)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _LONGEST_DELAY_S)
            self.restarts += 1

    def read_entities(self) -> None:
        """Have the engine read the entities again; one that is being started reads them anyway."""
        process = self._process
        if process is not None and process.stdin is not None and not self._finishing:
            with suppress(ConnectionError):
                process.stdin.write(READ_ENTITIES)

    async def finish(self, timeout_s: float) -> None:
        """Let the engine end after the commit that is under way; kill it after this long.

        What is not committed then, the next engine reads.
        """
        self._finishing = True
        process = self._process
        if process is None or process.stdin is None:
            return
        with suppress(ConnectionError):
            process.stdin.write(FINISH)
            await process.stdin.drain()
        try:
            await asyncio.wait_for(process.wait(), timeout_s)
        except TimeoutError:
            tell(logging.WARNING, "engine did not finish in time", timeout_s=timeout_s)
            await _kill(process)

    def _is_store_closed(self) -> bool:
        """Tell whether the engine ended because it cannot open its store, and say so."""
        is_closed = bool(self.status.error) and self.status.is_opening_store
        if is_closed:
            self._goes_on = True
            self._trouble.goes_on(self.status.error)
        return is_closed

    async def _run_once(self) -> int:
        process = await asyncio.create_subprocess_exec(
            *_COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE_BYTES,
            env=_ENVIRONMENT | os.environ,
            # Ctrl-C in a terminal is for this process, which tells the engine when to finish.
            process_group=0,
        )
        self._process = process
        self._was_ended = False
        watching = asyncio.create_task(self._watch_memory(process))
        try:
            return await self._attend(process)
        finally:
            watching.cancel()
            self.is_up = False
            self._process = None
            await _kill(process)
            self._queries.take((), 0, time.monotonic())

    async def _attend(self, process: Process) -> int:
        assert process.stdin is not None  # noqa: S101 - tells the type
        assert process.stdout is not None  # noqa: S101 - tells the type
        with suppress(ConnectionError):
            refused_s = self._queries.refused_s(time.monotonic())
            options = replace(self._options, refused_s=refused_s, is_restart=self._goes_on)
            process.stdin.write(options.as_line())
            await process.stdin.drain()
        try:
            while line := await self._next_line(process.stdout):
                self._take(line, process.pid)
        except TimeoutError:
            silent_s = round(self._longest_silence_s)
            tell(logging.ERROR, "engine tells nothing, it is killed", silent_s=silent_s)
            await _kill(process)
        # One that has closed its output ends, or hangs and is killed.
        return await asyncio.wait_for(process.wait(), _EXIT_S)

    async def _next_line(self, stdout: asyncio.StreamReader) -> bytes:
        # Opening a store may take any time.
        async with asyncio.timeout(self._longest_silence_s if self.is_up else None):
            return await stdout.readline()

    async def _watch_memory(self, process: Process) -> None:
        """End an engine that a query makes too large."""
        while process.returncode is None:
            await asyncio.sleep(_MEMORY_EVERY_S)
            if not self._queries.runs:
                continue
            memory_bytes = resident_bytes(process.pid)
            if self._queries.is_over(memory_bytes):
                suspects = self._queries.suspects(time.monotonic())
                self._end_for("took too much memory", suspects, memory_bytes=memory_bytes)
                await _kill(process)

    def _end_for(self, why: str, names: Sequence[str], **facts: int) -> None:
        self._was_ended = True
        self._queries.refuse(names, time.monotonic())
        line = "a query ends the engine, it is started again at once"
        tell(logging.WARNING, line, why=why, queries=len(names), **facts)

    def _take(self, line: bytes, process: int) -> None:
        try:
            self.status = EngineStatus.from_line(line)
        except ValueError:
            tell(logging.WARNING, "engine said something else than its status")
            return
        self._queries.take(self.status.queries, resident_bytes(process), time.monotonic())
        if self.status.outlived and not self._was_ended:
            self._end_for("does not end", [self.status.outlived])
        self.is_up = not self.status.error
        self._goes_on |= self.is_up
        if self.is_up:
            self._trouble.is_over()
        # A new engine knows none yet, and what the one before has stored stays stored.
        self.watermark_s = self.status.watermark_s or self.watermark_s


async def _kill(process: Process) -> None:
    """End a process that may have ended; one that the system cannot end is not waited for."""
    if process.returncode is None:
        process.kill()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _EXIT_S)
