"""The life of a recording server: open the spool, receive, and end without losing anything."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

# Its core writes lines of its own on standard error.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from prometheus_client import start_http_server

from framewalk.engine.errors import InputError
from framewalk.receiver.collect import Collector
from framewalk.receiver.grpc_server import GrpcTransport
from framewalk.receiver.limits import InFlight
from framewalk.receiver.spool import Fsync, Spool, SpoolOptions
from framewalk.receiver.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from framewalk.receiver.config import Config, GrpcServer
    from framewalk.receiver.config_model import Ebpf
    from framewalk.receiver.config_model import Telemetry as TelemetryBlock

_LOG: Final = logging.getLogger(__name__)
_ROOT: Final = "framewalk"


def record(config: Config, server: GrpcServer, spool_options: SpoolOptions) -> None:
    """Receive what Rover sends and keep it, until SIGTERM or SIGINT.

    Raises:
        FramewalkError: the server cannot start: a port or a spool in use, TLS files of no use.
        OSError: the spool's folder cannot be written.
    """
    _start_logging(config)
    if config.ebpf is None:
        place, remedy = "receiver-ebpf", "set its selector to default"
        raise InputError(place, "is turned off, so there is nothing to record", remedy)
    telemetry = Telemetry()
    with _opened(spool_options, telemetry) as spool:
        asyncio.run(_serve(config, config.ebpf, server, spool, telemetry))
    _LOG.info("stopped")


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


@contextmanager
def _opened(options: SpoolOptions, telemetry: Telemetry) -> Iterator[Spool]:
    spool = Spool(options, telemetry.flushed)
    try:
        _tell_recovered(spool)
        telemetry.watch("framewalk_spool_bytes", "Size of all segments.", spool.size_bytes)
        yield spool
    finally:
        spool.close()


def _tell_recovered(spool: Spool) -> None:
    recovered = spool.recovered
    for warning in recovered.warnings:
        _tell(logging.WARNING, "spool segment is damaged", warning=warning)
    _tell(
        logging.INFO,
        "spool opened",
        folder=spool.options.folder,
        fsync=spool.options.fsync,
        segments=recovered.segments,
        bytes=recovered.size_bytes,
        read_segments=recovered.read_segments,
        read_streams=recovered.streams,
        read_messages=recovered.messages,
    )


async def _serve(
    config: Config, ebpf: Ebpf, server: GrpcServer, spool: Spool, telemetry: Telemetry
) -> None:
    in_flight = InFlight(ebpf.max_concurrent_streams, ebpf.max_bytes_in_flight)
    telemetry.watch("framewalk_open_streams", "Streams open now.", lambda: in_flight.streams)
    telemetry.watch(
        "framewalk_in_flight_bytes", "Bytes received, not on disk.", lambda: in_flight.size_bytes
    )
    stop = _stop_event()
    token = config.authentication.get_secret_value() if config.authentication else None
    transport = GrpcTransport(server, Collector(spool, in_flight, telemetry), token)
    with _metrics_endpoint(config.telemetry, telemetry):
        await transport.start()
        _tell(
            logging.INFO,
            "ready",
            host=server.host,
            port=transport.port,
            tls=_tls_kind(server),
            token="required" if token else "none",
        )
        signal_name = await stop
        _tell(logging.INFO, "draining", signal=signal_name, streams=in_flight.streams)
        await transport.stop(config.core.drain_timeout_s)


def _stop_event() -> asyncio.Future[str]:
    """Return what has a result at the first SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[str] = loop.create_future()

    def end(name: str) -> None:
        if not stop.done():
            stop.set_result(name)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number.name)
    return stop


@contextmanager
def _metrics_endpoint(block: TelemetryBlock | None, telemetry: Telemetry) -> Iterator[None]:
    if block is None:
        yield
        return
    try:
        server, thread = start_http_server(block.port, block.host, telemetry.registry)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        place = f"{block.host}:{block.port}"
        remedy = "name another port in SW_TELEMETRY_PROMETHEUS_PORT"
        raise InputError(place, f"metrics: {reason}", remedy) from error
    _tell(logging.INFO, "metrics served", host=block.host, port=block.port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _tls_kind(server: GrpcServer) -> str:
    if server.tls is None:
        return "none"
    return "server" if server.tls.trusted_ca_path is None else "mutual"


def _tell(level: int, event: str, **facts: object) -> None:
    _LOG.log(level, event, extra={"facts": facts})


def _start_logging(config: Config) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if config.logging.format == "json" else _Text())
    level = config.logging.level.upper()
    logging.basicConfig(handlers=[handler], level=max(logging.WARNING, _number(level)), force=True)
    logging.getLogger(_ROOT).setLevel(level)


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level]


def _facts(line: logging.LogRecord) -> dict[str, str]:
    facts = {name: str(value) for name, value in getattr(line, "facts", {}).items()}
    if line.exc_info and line.exc_info[1] is not None:
        facts["error"] = repr(line.exc_info[1])
    return facts


def _time(line: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(line.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Text(logging.Formatter):
    """A line for people: time, level, event, facts."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        facts = [f"{name}={_quoted(value)}" for name, value in _facts(record).items()]
        event = record.getMessage().replace("\n", " ")
        return " ".join([_time(record), f"{record.levelname:<7}", event, *facts])


class _Json(logging.Formatter):
    """A line for programs."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        said = {"time": _time(record), "level": record.levelname, "event": record.getMessage()}
        return json.dumps(said | _facts(record), ensure_ascii=False)


def _quoted(text: str) -> str:
    plain = text and not any(one.isspace() or one in "\"'=" for one in text)
    return text if plain else json.dumps(text, ensure_ascii=False)
