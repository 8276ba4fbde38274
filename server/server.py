"""The life of a server: open the spool, receive, compute, and end without losing anything."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

# Its core writes lines of its own on standard error.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from framewalk.engine.caps import Caps
from framewalk.engine.captures import CAPTURE_SUFFIX, captures_in, segments_in
from framewalk.engine.errors import InputError
from framewalk.engine.paths import keep_files_private
from framewalk.engine.runs import QUARANTINE_BYTES
from framewalk.engine.telling import tell
from framewalk.receiver.intake import Collector, InFlight, Telemetry
from framewalk.receiver.spool import Fsync, Spool, SpoolOptions
from framewalk.receiver.transports import open_transport
from framewalk.server.endpoints import (
    graphql_endpoint,
    promql_endpoint,
    sql_endpoint,
    token_of,
)
from framewalk.server.engine import (
    ArchiveSettings,
    DiskBudget,
    EngineChild,
    EngineOptions,
    EngineTelemetry,
    default_limit_bytes,
    reserve_bytes,
    reserve_path,
    shortages,
)
from framewalk.server.logs import flush_logging, start_logging
from framewalk.server.metrics import metrics_served
from framewalk.server.sharing import PublishSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from framewalk.receiver.spool import Recovered
    from framewalk.receiver.transports import GrpcServer, Transport
    from framewalk.server.config import Config, UnknownVariable
    from framewalk.server.config import Engine as EngineConfig

# How long an engine that was asked to end may take to be seen to have ended.
_ENGINE_END_S: Final = 1
# What the disk has for the last streams, when the time of a stop is used up.
_LAST_WRITE_S: Final = 1
_OTHERS: Final = 0o007
_NO_ARCHIVE: Final = "logs are to be published, and none are archived"
_STOPS: Final = (signal.SIGTERM, signal.SIGINT)


def serve(
    config: Config,
    server: GrpcServer,
    spool_options: SpoolOptions,
    *,
    computes: bool,
    unknown: Sequence[UnknownVariable] = (),
) -> None:
    """Receive what Rover sends and keep it, until SIGTERM or SIGINT; tell of `unknown` variables.

    If it `computes`, and the engine is not turned off, an engine process turns it into metrics.

    Raises:
        FramewalkError: the server cannot start: a port, a spool or a store in use, TLS files or
            definitions of no use.
        OSError: the spool's folder cannot be written.
    """
    start_logging(config.logging.format, config.logging.level)
    for variable, hint in unknown:
        tell(logging.WARNING, "this variable means nothing", variable=variable, hint=hint)
    keep_files_private()
    _tell_open_to_others(spool_options.folder, config.storage.path)
    computes = computes and config.engine is not None
    if computes:
        spool_options = _with_reserve(config, spool_options)
    _tell_shortages(config, spool_options, computes=computes)
    with _signals() as signals:
        _allow_many_files()
        if config.ebpf is None:
            place, remedy = "receiver-ebpf", "set its selector to default"
            raise InputError(place, "is turned off, so there is nothing to receive", remedy)
        telemetry = Telemetry()
        with _opened(spool_options, telemetry) as spool:
            engine = _engine(config, spool_options) if computes else None
            if engine is not None:
                telemetry.registry.register(EngineTelemetry(engine))
            asyncio.run(_serve(config, server, _Parts(spool, engine, telemetry, signals)))
        tell(logging.INFO, "stopped")


def spool_options_of(config: Config) -> SpoolOptions:
    """Return how the spool is to be written."""
    spool = config.spool
    return SpoolOptions(
        folder=spool.directory,
        segment_bytes=spool.segment_bytes,
        segment_age_s=spool.segment_age_s,
        budget_bytes=spool.budget_bytes,
        fsync=Fsync(spool.fsync),
        fsync_interval_s=spool.fsync_interval_s,
    )


def _engine(config: Config, spool: SpoolOptions) -> EngineChild | None:
    """Return the engine that the configuration asks for, for a spool that was just opened."""
    if config.engine is None:
        return None
    newest, ttl_days = segments_in(spool.folder)[-1:], config.core.ttl_days
    options = EngineOptions(
        spool_folder=spool.folder,
        complete_through=newest[0].name if newest else "",
        retention_s=config.spool.retention_s,
        budget_bytes=spool.budget_bytes,
        store_path=config.storage.path,
        minute_ttl_days=ttl_days["minute_ttl_days"],
        hour_ttl_days=ttl_days["hour_ttl_days"],
        day_ttl_days=ttl_days["day_ttl_days"],
        flush_interval_s=config.engine.flush_interval_s,
        max_ahead_s=config.engine.max_ahead_s,
        entities_paths=config.engine.entities_paths,
        name_by_owner=config.engine.name_by_owner,
        kubernetes=config.engine.kubernetes,
        kubeconfig=config.engine.kubeconfig,
        kubernetes_contexts=config.engine.kubernetes_contexts,
        entities_reload_s=config.engine.entities_reload_s,
        name_wait_s=config.engine.name_wait_s,
        oal_paths=config.engine.oal_paths,
        apdex_path=config.engine.apdex_path,
        endpoint_patterns_path=config.engine.endpoint_patterns_path,
        sql=sql_endpoint(config),
        graphql=graphql_endpoint(config),
        promql=promql_endpoint(config),
        log_format=config.logging.format,
        log_level=config.logging.level,
        caps=_caps(config.engine),
        memory_bytes=config.engine.memory_bytes or default_limit_bytes(),
        segment_bytes=spool.segment_bytes,
        store_budget_bytes=config.storage.budget_bytes,
        reserve_bytes=spool.reserve_bytes,
        archive=_archive(config),
        publish=_publish(config),
    )
    return EngineChild(options)


def _archive(config: Config) -> ArchiveSettings | None:
    if config.archive is None or config.archive.mode == "none":
        return None
    is_passing = config.archive.mode == "off"
    return ArchiveSettings(
        mode="http" if is_passing else config.archive.mode,
        folder=config.archive.folder_of(config.storage.path),
        ttl_days=config.core.record_ttl_days,
        budget_bytes=config.archive.budget_bytes,
        texts=config.archive.kept_texts,
        sample_one_in=config.archive.sample_one_in,
        slow_ms=config.archive.slow_ms,
        is_passing=is_passing,
    )


def _publish(config: Config) -> PublishSettings | None:
    block = config.publish
    if block is None or not block.uri:
        return None
    label = block.engine_name or socket.gethostname()
    archive = _archive(config)
    if block.logs and (archive is None or archive.is_passing):
        raise InputError(block.uri, _NO_ARCHIVE, "turn that on (FRAMEWALK_ARCHIVE_MODE=http)")
    return PublishSettings(block.uri, block.every_s, block.outbox_bytes, label, block.logs)


def _caps(engine: EngineConfig) -> Caps:
    return Caps(
        endpoints_per_service=engine.max_endpoints_per_service,
        entities_per_stream=engine.max_entities_per_stream,
        minutes_per_stream=engine.max_minutes_per_stream,
        entities_per_minute=engine.max_entities_per_minute,
    )


def _with_reserve(config: Config, spool: SpoolOptions) -> SpoolOptions:
    """Have the spool leave room where the engine's reserve is given up."""
    path = config.storage.path
    wanted_bytes = reserve_bytes(path, config.storage.reserve_bytes)
    return replace(spool, reserve_path=reserve_path(path), reserve_bytes=wanted_bytes)


def _tell_shortages(config: Config, spool: SpoolOptions, *, computes: bool) -> None:
    """Tell where the budgets are more than a disk has: what is acknowledged may not fit then."""
    for shortage in shortages(list(_budgets(config, spool, computes=computes))):
        named = ", ".join(f"{one.name} {one.budget_bytes:,}" for one in shortage.budgets)
        tell(
            logging.WARNING,
            "budgets are more than the disk has",
            disk=shortage.budgets[0].path,
            budgets=named,
            together=sum(one.budget_bytes for one in shortage.budgets),
            has=shortage.has_bytes,
            remedy="lower them, or give it a larger disk",
        )


def _budgets(config: Config, spool: SpoolOptions, *, computes: bool) -> Iterator[DiskBudget]:
    folder = spool.folder
    used_bytes = _sizes_bytes(segments_in(folder))
    yield DiskBudget("FRAMEWALK_SPOOL_BUDGET_BYTES", folder, spool.budget_bytes, used_bytes)
    if not computes:
        return
    used_bytes = _sizes_bytes(folder.glob(f"*/*{CAPTURE_SUFFIX}"))
    yield DiskBudget("quarantine", folder, QUARANTINE_BYTES, used_bytes)
    path, budget_bytes = config.storage.path, config.storage.budget_bytes
    used_bytes = _sizes_bytes([path, path.with_name(f"{path.name}.wal")])
    yield DiskBudget("FRAMEWALK_STORE_BUDGET_BYTES", path, budget_bytes, used_bytes)
    archive = _archive(config)
    if archive is not None:
        used_bytes = _sizes_bytes(archive.folder.rglob("*.parquet"))
        name = "FRAMEWALK_ARCHIVE_BUDGET_BYTES"
        yield DiskBudget(name, archive.folder, archive.budget_bytes, used_bytes)
    kept = reserve_path(path)
    used_bytes = _sizes_bytes([kept])
    yield DiskBudget("FRAMEWALK_STORE_RESERVE_BYTES", kept, spool.reserve_bytes, used_bytes)


def _sizes_bytes(paths: Iterable[Path]) -> int:
    sizes_bytes = 0
    for path in paths:
        with suppress(OSError):
            sizes_bytes += path.stat().st_size
    return sizes_bytes


@contextmanager
def _opened(options: SpoolOptions, telemetry: Telemetry) -> Iterator[Spool]:
    spool = Spool(options, telemetry.flushed, partial(_tell_recovered, options))
    try:
        for path in set(captures_in(options.folder)) - set(segments_in(options.folder)):
            tell(logging.WARNING, "this is no segment, it is left out; replay it", path=path)
        telemetry.watch("framewalk_spool_bytes", "Size of all segments.", spool.size_bytes)
        yield spool
    finally:
        spool.close(_LAST_WRITE_S)


def _tell_recovered(options: SpoolOptions, recovered: Recovered) -> None:
    for warning in recovered.warnings:
        tell(logging.WARNING, "spool segment is damaged", warning=warning)
    tell(
        logging.INFO,
        "spool opened",
        folder=options.folder,
        fsync=options.fsync,
        segments=recovered.segments,
        bytes=recovered.size_bytes,
        read_segments=recovered.read_segments,
        read_streams=recovered.streams,
        read_messages=recovered.messages,
    )


def _tell_open_to_others(*paths: Path) -> None:
    """Tell what an earlier version, or somebody else, has left for every user to read."""
    for path in paths:
        with suppress(OSError):
            if path.stat().st_mode & _OTHERS:
                remedy = "chmod o-rwx"
                tell(logging.WARNING, "every user can read this", path=path, remedy=remedy)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a server is made of, once it has its spool."""

    spool: Spool
    engine: EngineChild | None
    telemetry: Telemetry
    signals: _Signals


async def _serve(config: Config, server: GrpcServer, parts: _Parts) -> None:
    spool, engine, telemetry = parts.spool, parts.engine, parts.telemetry
    assert config.ebpf is not None  # noqa: S101 - asked before
    in_flight = InFlight(config.ebpf.max_concurrent_streams, config.ebpf.max_bytes_in_flight)
    telemetry.watch("framewalk_open_streams", "Streams open now.", lambda: in_flight.streams)
    telemetry.watch(
        "framewalk_in_flight_bytes", "Bytes received, not on disk.", lambda: in_flight.size_bytes
    )
    stop = parts.signals.first(asyncio.get_running_loop())
    token = token_of(config)
    collector = Collector(spool, in_flight, telemetry)
    transport = open_transport(config.core.grpc_transport, server, collector, token)
    with metrics_served(config.telemetry, telemetry.registry):
        await transport.start()
        tell(
            logging.INFO,
            "ready",
            host=server.host,
            port=transport.port,
            tls=_tls_kind(server),
            token="required" if token else "none",
        )
        parts.signals.on_hangup(asyncio.get_running_loop(), partial(_read_again, engine))
        reason, computing = await _work(spool, engine, stop)
        tell(logging.INFO, "draining", reason=reason, streams=in_flight.streams)
        # Without a spool no stream that is under way can be kept.
        has_failed = spool.opening.done() and spool.opening.exception() is not None
        await _end(transport, spool, engine, 0 if has_failed else config.core.drain_timeout_s)
    if spool.opening.done():
        spool.opening.result()
    if computing is not None:
        await _ended(computing)


async def _work(
    spool: Spool, engine: EngineChild | None, stop: asyncio.Future[str]
) -> tuple[str, asyncio.Task[None] | None]:
    """Compute once the spool is open, until there is a reason to end; return that and the task."""
    opening = asyncio.wrap_future(spool.opening)
    either: list[asyncio.Future[Any]] = [stop, opening]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if stop.done():
        return stop.result(), None
    if opening.exception() is not None:
        return "spool cannot be opened", None
    if engine is None:
        return await stop, None
    # Last, as nothing may fail while a process is being started: asyncio would wait for ever.
    computing = asyncio.create_task(engine.run())
    either = [stop, computing]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    return stop.result() if stop.done() else "engine cannot work", computing


def _read_again(engine: EngineChild | None) -> None:
    if engine is None:
        tell(logging.INFO, "SIGHUP changes nothing, there is no engine")
        return
    tell(logging.INFO, "entities and definitions are to be read again", reason="SIGHUP")
    engine.read_entities()


async def _end(
    transport: Transport, spool: Spool, engine: EngineChild | None, timeout_s: float
) -> None:
    """End the engine, then take in what is under way; each may take this long.

    An engine may need long for its commit, and a sender that is refused has lost its stream: so
    streams are taken until it has ended.
    """
    if engine is not None:
        await engine.finish(timeout_s)
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + timeout_s
    await transport.stop(timeout_s)
    left_s = max(ends_s - loop.time(), 0) + _LAST_WRITE_S
    if not await asyncio.to_thread(spool.finish, left_s):
        tell(logging.WARNING, "disk did not take all streams in time", timeout_s=timeout_s)


async def _ended(computing: asyncio.Task[None]) -> None:
    """Raise what ended the engine; stop waiting where it was about to be started again."""
    await asyncio.wait([computing], timeout=_ENGINE_END_S)
    if not computing.done():
        computing.cancel()
    with suppress(asyncio.CancelledError):
        await computing


class _Signals:
    """What asks to stop, from the start of the server to the end of the process.

    A loop's own handlers end with it, and from then on a signal would end the process.
    """

    def __init__(self) -> None:
        self._first = ""
        self._on_first: Callable[[], object] = lambda: None
        self._on_hangup: Callable[[], object] = lambda: None
        for number in _STOPS:
            signal.signal(number, self._take)
        signal.signal(signal.SIGHUP, self._hang_up)

    def first(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[str]:
        """Return what has a result when there was a signal: its name."""
        stop: asyncio.Future[str] = loop.create_future()

        def end() -> None:
            if not stop.done():
                stop.set_result(self._first)

        self._on_first = lambda: loop.call_soon_threadsafe(end)
        if self._first:
            end()
        return stop

    def on_hangup(self, loop: asyncio.AbstractEventLoop, act: Callable[[], object]) -> None:
        """Have SIGHUP do that; before, it does nothing."""
        self._on_hangup = lambda: loop.call_soon_threadsafe(act)

    def _hang_up(self, _number: int, _frame: object) -> None:
        with suppress(RuntimeError):
            self._on_hangup()

    def _take(self, number: int, _frame: object) -> None:
        if not self._first:
            self._first = signal.Signals(number).name
            # A loop that has ended needs to hear of nothing.
            with suppress(RuntimeError):
                self._on_first()


@contextmanager
def _signals() -> Iterator[_Signals]:
    try:
        yield _Signals()
    finally:
        # Python gives its own handlers up while it ends.
        for number in (*_STOPS, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        flush_logging()


def _allow_many_files() -> None:
    """Take as many descriptors as the system lets us: each connection needs one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _tls_kind(server: GrpcServer) -> str:
    if server.tls is None:
        return "none"
    return "server" if server.tls.trusted_ca_path is None else "mutual"
