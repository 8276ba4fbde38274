"""`framewalk send`: captures to a receiver, the way Rover sends."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from framewalk.cli.console import byte_progress, complain, print_summary, warn
from framewalk.engine.captures import capture_path, find_captures

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from framewalk.receiver.send import ClientTls, Sent

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+):([0-9]{1,5})", re.ASCII)
_LAST_PORT = 65_535


def send(
    captures: Annotated[
        list[Path],
        typer.Argument(
            metavar="CAPTURE",
            parser=capture_path,
            help="Captures (*.capture.arrows), or folders of them; s3://BUCKET/PATH where they are "
            "on object storage.",
            show_default=False,
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="HOST:PORT",
            help="Where the receiver listens.",
            show_default=False,
        ),
    ],
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            min=0.001,
            metavar="MESSAGES_PER_SECOND",
            help="Start streams no faster than this, on average. Default: as fast as it goes.",
            show_default=False,
        ),
    ] = None,
    streams: Annotated[
        int, typer.Option("--streams", min=1, metavar="N", help="Send so many streams at once.")
    ] = 4,
    ca: Annotated[
        Path | None,
        typer.Option(
            "--ca",
            metavar="FILE",
            help="Trust the receiver by this PEM file; it turns TLS on. "
            "Default with TLS: the public authorities that gRPC knows.",
            show_default=False,
        ),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--certificate",
            metavar="FILE",
            help="Show this PEM certificate (mutual TLS); it turns TLS on, and needs --key.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key", metavar="FILE", help="The PEM key of --certificate.", show_default=False
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            envvar="FRAMEWALK_TOKEN",
            metavar="TEXT",
            help="The receiver's authentication token. Other users of this machine cannot see it "
            "in the environment variable.",
            show_default=False,
        ),
    ] = None,
    *,
    tls: Annotated[bool, typer.Option("--tls", help="Use TLS.")] = False,
) -> None:
    """Send captures to a receiver the way SkyWalking Rover does.

    Each stream of a capture becomes a new call, with a deadline of 20 seconds.

    Nothing is sent twice: a stream that is not acknowledged is counted, and the exit code is 1.
    """
    _check_address(to)
    _check_token(token)
    # grpc would add lines of its own to what is said here.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Here, so that no other command waits until grpc is loaded.
    from framewalk.receiver.send import Receiver, send_captures  # noqa: PLC0415

    wanted = tls or any((ca, certificate, key))
    receiver = Receiver(to, _client_tls(ca, certificate, key) if wanted else None, token)
    paths = find_captures(captures)
    with byte_progress() as progress:
        started_s = time.monotonic()
        sent = send_captures(
            paths, receiver, messages_per_s=rate, at_once=streams, on_progress=_Bars(progress)
        )
        duration_s = time.monotonic() - started_s
    _warn(sent)
    print_summary(_summary_rows(sent, duration_s))
    _end(sent, to)


def _check_address(address: str) -> None:
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match[2]) <= _LAST_PORT:
        problem = f"{address!r} is not HOST:PORT, such as 127.0.0.1:11800 or [::1]:11800"
        raise typer.BadParameter(problem, param_hint="--to")


def _check_token(token: str | None) -> None:
    if token and not (token.isascii() and token.isprintable()):
        problem = "gRPC can carry printable ASCII characters only"
        raise typer.BadParameter(problem, param_hint="--token")


def _client_tls(ca: Path | None, certificate: Path | None, key: Path | None) -> ClientTls:
    from framewalk.receiver.send import ClientTls  # noqa: PLC0415

    if (certificate is None) != (key is None):
        problem = "one is of no use without the other"
        raise typer.BadParameter(problem, param_hint="--certificate, --key")
    return ClientTls(ca, certificate, key)


class _Bars:
    """One progress bar per capture, from when it begins."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[Path, TaskID] = {}

    def __call__(self, path: Path, done_bytes: float, size_bytes: int) -> None:
        if path not in self._tasks:
            self._tasks[path] = self._progress.add_task(escape(path.name), total=size_bytes)
        self._progress.update(self._tasks[path], completed=done_bytes)


def _warn(sent: Sent) -> None:
    for warning in sent.warnings:
        warn(warning)
    if sent.continued:
        warn(
            f"{sent.continued:,} calls began in the middle of a stream: its start is not in the "
            "capture, or too far before; the receiver cannot tell whose these messages are"
        )


def _summary_rows(sent: Sent, duration_s: float) -> list[tuple[str, str]]:
    rate = sent.messages / duration_s if duration_s > 0 else 0
    return [
        ("streams", f"{sent.acknowledged + sent.refused.total():,}"),
        ("streams acknowledged", f"{sent.acknowledged:,}"),
        ("messages acknowledged", f"{sent.messages:,}"),
        ("bytes acknowledged", f"{sent.size_bytes:,}"),
        ("seconds", f"{duration_s:,.1f}"),
        ("messages per second", f"{rate:,.0f}"),
    ]


def _end(sent: Sent, address: str) -> None:
    for status, count in sent.refused.most_common():
        noun = "stream was" if count == 1 else "streams were"
        reason = f": {sent.reasons[status]}" if sent.reasons[status] else ""
        complain(f"{address}: {count:,} {noun} not acknowledged: {status}{reason}")
    if sent.refused:
        raise typer.Exit(1)
