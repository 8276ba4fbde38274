"""Readers that ask a server for every archived log, again and again, and judge each answer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self

import httpx
from deadly import started_with_python
from prepared import framewalk
from recording import DEADLINE_S, Messages
from serving import Serving

from framewalk.engine.wire import access_log_pb2 as pb

KINDS = ("http", "connection", "transfer")
# A log of each kind comes with each message, and each has its metric.
DEFINITIONS = """
http = from(K8SService.*).filter(type == "protocol").filter(protocol.type == "http").cpm();
connection = from(K8SService.*).filter(type == "accept").cpm();
transfer = from(K8SService.*).filter(type == "write").cpm();
"""
# The logs, what the metrics of the same commits count, and up to when logs may be gone.
QUESTION = f"""
{
    "".join(
        f"SELECT '{kind}' AS what, epoch_ns(time) AS at_ns, count(*) AS logs FROM {kind}_logs "
        "GROUP BY ALL UNION ALL "
        f"SELECT '{kind} counted', epoch_ns(time_bucket), sum({kind})::BIGINT FROM service_minute "
        f"WHERE {kind} > 0 GROUP BY ALL UNION ALL "
        for kind in KINDS
    )
}
SELECT 'gone', coalesce(gone_ns, 0), 0 FROM internal.archive
"""
_NS = 10**9
_MINUTE_NS = 60 * _NS
_HOUR_S = 3_600
# An hour that is to be expired, two that are over, and what is about now.
_HOURS_AGO = (25, 3, 2, 0)
_BOOT_HOURS_AGO = 40
_PAUSE_S = 0.1

# Each job of an engine is due at each look at the spool, and few files are enough to merge them.
_EAGER = """
import sys

if "framewalk.server.engine.process" in sys.orig_argv:
    from framewalk.engine.archive import merging
    from framewalk.server.engine import upkeep

    upkeep._MERGE_EVERY_S = upkeep._EXPIRE_EVERY_S = upkeep._COMPACT_EVERY_S = 0.1
    merging._OPEN_FILES = {open_files}
"""

Log = tuple[str, int]


def eager_environment(folder: Path, open_files: int) -> dict[str, str]:
    """Return the variables with which an engine merges and expires all the time."""
    return started_with_python(folder, _EAGER.format(open_files=open_files))


class Sender:
    """Makes streams: no two of their logs begin at the same time."""

    def __init__(self) -> None:
        self.now_s = int(time.time()) - 60
        self.sent: set[Log] = set()
        self.messages = 0

    def stream(self, logs_of_an_hour: int = 1) -> Messages:
        """Return the next stream, with so many messages of each hour."""
        boot_s = self.now_s - _BOOT_HOURS_AGO * _HOUR_S
        made = []
        for number in range(logs_of_an_hour * len(_HOURS_AGO)):
            message = pb.EBPFAccessLogMessage()
            if number == 0:
                message.node.name = "node"
                message.node.bootTime.seconds = boot_s
            message.connection.role = 1
            message.connection.protocol = 1
            for side, name in (
                (message.connection.local, "shop"),
                (message.connection.remote, "user"),
            ):
                side.kubernetes.serviceName = name
                side.kubernetes.podName = f"{name}-{number % 2}"
                side.kubernetes.port = 8_080
            self.messages += 1
            since_s = self.now_s - _HOURS_AGO[number % len(_HOURS_AGO)] * _HOUR_S - boot_s
            begin_ns = (since_s - self.messages % 4 * 60) * _NS + self.messages * 1_000
            http = message.protocolLog.http
            http.startTime.offset.offset = begin_ns
            http.endTime.offset.offset = begin_ns + 5_000_000
            http.request.path = f"/{self.messages % 7}"
            http.response.statusCode = 200
            kernel = message.kernelLogs.add()
            kernel.accept.startTime.offset.offset = begin_ns
            kernel.accept.endTime.offset.offset = begin_ns + 1_000
            kernel = message.kernelLogs.add()
            kernel.write.startTime.offset.offset = begin_ns
            kernel.write.endTime.offset.offset = begin_ns + 1_000
            self.sent.update((kind, boot_s * _NS + begin_ns) for kind in KINDS)
            made.append(message.SerializeToString())
        return made


class _Answer(NamedTuple):
    """What one statement told: how often each log is there, what was counted of each minute."""

    logs: dict[Log, int]
    counted: dict[Log, int]
    gone_ns: int


class Readers:
    """Threads that ask a server as users do, over HTTP and with `framewalk sql`, until the end.

    `answers` counts those that were judged; `seen` are the logs that some answer had, `gone` those
    of them that a later answer had no more. Leaving raises what a reader found wrong.
    """

    def __init__(self, server: Callable[[], Serving]) -> None:
        self.answers: dict[str, int] = {}
        self.seen: set[Log] = set()
        self.gone: set[Log] = set()
        self._server = server
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._reading: list[Future[None]] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        ways = {"http": self._over_http, "command": self._by_command}
        threads = self._stack.enter_context(ThreadPoolExecutor(len(ways)))
        self._stack.callback(self._end.set)
        self.answers = dict.fromkeys(ways, 0)
        self._reading = [threads.submit(self._read, *way) for way in ways.items()]
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self.check()

    def check(self) -> None:
        """Raise what a reader has found wrong by now."""
        for one in self._reading:
            if one.done():
                one.result()

    def have_ended(self) -> bool:
        """Tell whether a reader has ended, which it does where it has found something wrong."""
        return any(one.done() for one in self._reading)

    def have_more(self, before: dict[str, int], answers: int) -> bool:
        """Tell whether each reader has had so many answers more."""
        return all(self.answers[way] >= count + answers for way, count in before.items())

    def _read(self, name: str, ask: Callable[[], str | None]) -> None:
        while not self._end.is_set():
            with self._lock:
                seen, gone = self.seen.copy(), self.gone.copy()
            text = ask()
            if text is None:
                # It is started again just now, or a machine that is slow cuts queries off.
                self._end.wait(_PAUSE_S)
                continue
            self._judge(_parsed(text), seen, gone)
            self.answers[name] += 1

    def _judge(self, answer: _Answer, seen: set[Log], gone: set[Log]) -> None:
        """Compare an answer with what was known before it was asked for."""
        twice = [log for log, times in answer.logs.items() if times != 1]
        assert not twice, f"logs that are there twice: {twice[:5]}"
        missing = seen - answer.logs.keys()
        lost = [log for log in missing if log[1] > answer.gone_ns]
        assert not lost, f"logs that were there, and did not expire: {sorted(lost)[:5]}"
        back = gone & answer.logs.keys()
        assert not back, f"logs that are there again: {sorted(back)[:5]}"
        counted: dict[Log, int] = {}
        for kind, at_ns in answer.logs:
            minute = kind, at_ns - at_ns % _MINUTE_NS
            counted[minute] = counted.get(minute, 0) + 1
        # What the metrics of the same commits count is there, unless it may have expired.
        for log in answer.counted.keys() | counted.keys():
            logs, wanted = counted.get(log, 0), answer.counted.get(log, 0)
            if log[1] > answer.gone_ns:
                assert logs == wanted, f"{log}: {logs} logs, and {wanted} counted"
            else:
                assert logs <= wanted, f"{log}: {logs} logs, and only {wanted} counted"
        with self._lock:
            self.seen |= answer.logs.keys()
            self.gone |= missing

    def _over_http(self) -> str | None:
        server = self._server()
        url = f"http://127.0.0.1:{server.environment['FRAMEWALK_SQL_LISTEN_PORT']}/sql"
        try:
            answer = httpx.post(url, json={"query": QUESTION}, timeout=DEADLINE_S)
        except httpx.TransportError:
            return None
        if answer.status_code in {408, 503}:
            return None
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert not told.get("truncated"), told
        return json.dumps(told["rows"])

    def _by_command(self) -> str | None:
        done = framewalk("sql", QUESTION, "--store", self._server().store, "--format", "json")
        return done.stdout if done.returncode == 0 else None


def _parsed(text: str) -> _Answer:
    logs: dict[Log, int] = {}
    counted: dict[Log, int] = {}
    gone_ns = 0
    for row in json.loads(text):
        what, at_ns, number = row["what"], int(row["at_ns"]), int(row["logs"])
        if what == "gone":
            gone_ns = at_ns
        elif what in KINDS:
            logs[what, at_ns] = number
        else:
            counted[what.removesuffix(" counted"), at_ns] = number
    return _Answer(logs, counted, gone_ns)
