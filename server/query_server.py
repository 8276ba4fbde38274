"""A store that no server writes, in every protocol that the configuration turns on."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector

from framewalk.engine import open_for_reading
from framewalk.engine.errors import InputError
from framewalk.engine.paths import keep_files_private
from framewalk.engine.processes import StopSignals
from framewalk.engine.telling import tell
from framewalk.server.answering import Wanted, answering
from framewalk.server.endpoints import (
    graphql_endpoint,
    metrics_url,
    promql_endpoint,
    sql_endpoint,
)
from framewalk.server.engine import Growth, resident_bytes
from framewalk.server.following import FollowerTelemetry, Following, Kept, KeptLogs
from framewalk.server.logs import flush_logging, start_logging
from framewalk.server.metrics import metrics_served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from framewalk.server.config import Config
    from framewalk.server.following import FollowOptions


def serve_store(config: Config, store: Path) -> None:
    """Answer queries about a store, until SIGTERM or SIGINT.

    Raises:
        StoreError: the store is not there, or somebody writes it.
        InputError: a port of SQL is in use, or nothing is turned on.
    """
    start_logging(config.logging.format, config.logging.level)
    wanted = _wanted(config, store, is_written=False)
    signals = StopSignals()
    connection = open_for_reading(store)
    try:
        with answering(connection, store, wanted):
            tell(logging.INFO, "ready", store=store)
            tell(logging.INFO, "stopping", reason=signals.wait())
    finally:
        connection.close()
        flush_logging()


def follow_and_serve(config: Config, store: Path, options: FollowOptions) -> None:
    """Answer queries about a table that engines share, until SIGTERM or SIGINT.

    `store` is made of it, and brought to where it is again and again.

    Raises:
        StoreError: the store is not one that follows this table, or somebody has it open.
        TableError: the table cannot be used by this version.
        InputError: a port of SQL is in use, or nothing is turned on.
    """
    start_logging(config.logging.format, config.logging.level)
    keep_files_private()
    asked = _Asked()
    wanted = replace(_wanted(config, store, is_written=True), watcher=asked)
    kept = Kept(wanted.ttl_days, config.storage.budget_bytes)
    options = replace(options, logs=_kept_logs(config, store, options.most_requests))
    signals, reason = StopSignals(), ""
    try:
        while not reason:
            with Following(options, kept, store) as following, _told(config, following) as told_at:
                if wanted.sql is not None:
                    wanted = replace(wanted, sql=replace(wanted.sql, metrics_url=told_at))
                reason = _follow(following, store, wanted, asked, signals)
        tell(logging.INFO, "stopping", reason=reason)
    finally:
        flush_logging()


def _follow(
    following: Following,
    store: Path,
    wanted: Wanted,
    asked: _Asked,
    signals: StopSignals,
) -> str:
    """Follow and answer; returns why to stop, or "" where the store is to be opened again."""
    reason, opened = "", following.open(time.time(), time.monotonic())
    while opened is None and not reason:
        reason = signals.wait(following.every_s)
        opened = following.open(time.time(), time.monotonic())
    if opened is None or reason:
        return reason
    growth = Growth(time.monotonic())
    with answering(opened.connection, store, wanted) as found:
        following.cancel_queries = found.cancel_queries
        tell(logging.INFO, "ready", store=store)
        while not reason:
            reason = signals.wait(following.step(time.time(), time.monotonic()))
            memory_bytes = resident_bytes()
            growth.look(memory_bytes, time.monotonic())
            if growth.is_much and not asked.runs:
                line = "follower has grown, its store is opened again"
                tell(logging.INFO, line, memory_bytes=memory_bytes)
                break
    return reason


class _Asked:
    """Counts the queries that run."""

    def __init__(self) -> None:
        self._running = 0
        self._lock = threading.Lock()

    @property
    def runs(self) -> bool:
        """Whether one runs."""
        return self._running > 0

    def began(self, _name: str) -> None:
        with self._lock:
            self._running += 1

    def ended(self, _name: str) -> None:
        with self._lock:
            self._running -= 1

    def outlived(self, _name: str) -> None:
        """Nobody here can end it."""


@contextmanager
def _told(config: Config, following: Following) -> Iterator[str | None]:
    """Serve what a follower says of itself; gives where, None where it is not served.

    A server beside it may have the port: answers are worth more.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(FollowerTelemetry(lambda: following.status))
    with ExitStack() as stack:
        url = None
        try:
            stack.enter_context(metrics_served(config.telemetry, registry))
            url = metrics_url(config.telemetry)
        except InputError as error:
            tell(logging.ERROR, "metrics are not served", error=error)
        yield url


def _kept_logs(config: Config, store: Path, most_requests: int) -> KeptLogs | None:
    archive = config.archive
    if archive is None:
        return None
    longest_s = config.sql.timeout_s if config.sql is not None else 0
    days = config.core.record_ttl_days
    kept = KeptLogs(
        archive.folder_of(store),
        days,
        archive.budget_bytes,
        longest_s,
        most_requests=most_requests,
    )
    if config.engine is None:
        return kept
    return replace(kept, endpoints_per_service=config.engine.max_endpoints_per_service)


def _wanted(config: Config, store: Path, *, is_written: bool) -> Wanted:
    sql, ttl_days = sql_endpoint(config), config.core.ttl_days
    wanted = Wanted(
        # What only reads says nothing of itself; a follower has its own metrics.
        sql=None if sql is None else replace(sql, metrics_url=None),
        graphql=graphql_endpoint(config),
        promql=promql_endpoint(config),
        ttl_days=(ttl_days["minute_ttl_days"], ttl_days["hour_ttl_days"], ttl_days["day_ttl_days"]),
        archive_folder=config.archive.folder_of(store) if config.archive is not None else None,
        is_written=is_written,
    )
    if not (wanted.sql or wanted.graphql or wanted.promql):
        raise InputError(store, "every query protocol is turned off", "turn one on")
    return wanted
