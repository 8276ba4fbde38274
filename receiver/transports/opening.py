"""Opens the transport that is asked for, and loads nothing of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from framewalk.receiver.intake import Collector
    from framewalk.receiver.transports.options import GrpcServer
    from framewalk.receiver.transports.transport import Transport, TransportKind


def open_transport(
    kind: TransportKind, options: GrpcServer, collector: Collector, token: str | None
) -> Transport:
    """Bind a server of this kind; senders must show `token`, if there is one.

    Raises:
        InputError: the port or the TLS files cannot be used.
    """
    # Imported here: either one brings a library that the other has no use for.
    if kind == "grpcio":
        from framewalk.receiver.transports.grpcio import GrpcTransport  # noqa: PLC0415

        return GrpcTransport(options, collector, token)
    from framewalk.receiver.transports.uvicorn import Http2Transport  # noqa: PLC0415

    return Http2Transport(options, collector, token)
