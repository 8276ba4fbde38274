"""TLS in front of a connection; a handshake that fails is told of, where asyncio says nothing."""

from __future__ import annotations

import ssl
from asyncio.sslproto import SSLProtocol
from typing import TYPE_CHECKING, Any, Final

from framewalk.receiver.transports.transport import REFUSED
from framewalk.receiver.transports.uvicorn.protocol import peer_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from framewalk.engine.telling import Tally

# How long a caller may take for it.
_HANDSHAKE_TIMEOUT_S: Final = 20
_OTHER: Final = "tls_handshake"
# What OpenSSL calls it, and the reason that is told. Alerts are what the caller says of us.
_REASONS: Final = {
    "HTTP_REQUEST": "plain_text_on_tls_port",
    "HTTPS_PROXY_REQUEST": "plain_text_on_tls_port",
    "WRONG_VERSION_NUMBER": "plain_text_on_tls_port",
    "PACKET_LENGTH_TOO_LONG": "plain_text_on_tls_port",
    "RECORD_LAYER_FAILURE": "plain_text_on_tls_port",
    "CERTIFICATE_VERIFY_FAILED": "untrusted_certificate",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no_certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "sender_does_not_trust_this_server",
    "SSLV3_ALERT_BAD_CERTIFICATE": "sender_does_not_trust_this_server",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "sender_does_not_trust_this_server",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "sender_does_not_trust_this_server",
    "UNSUPPORTED_PROTOCOL": "old_tls_version",
}


def with_tls(
    connection: Callable[[], asyncio.BaseProtocol],
    context: ssl.SSLContext,
    loop: asyncio.AbstractEventLoop,
    tally: Tally,
) -> Callable[[], asyncio.BaseProtocol]:
    """Return what makes a protocol that shakes hands, then hands what it reads to a connection."""
    return lambda: _Handshake(connection(), context, loop, tally)


class _Handshake(SSLProtocol):
    """One connection. One that ends before it has said anything is a probe, and is not told of."""

    def __init__(
        self,
        connection: asyncio.BaseProtocol,
        context: ssl.SSLContext,
        loop: asyncio.AbstractEventLoop,
        tally: Tally,
    ) -> None:
        done = loop.create_future()
        done.add_done_callback(self._tell)
        timeout_s = _HANDSHAKE_TIMEOUT_S
        super().__init__(
            loop, connection, context, done, server_side=True, ssl_handshake_timeout=timeout_s
        )
        self._tally = tally
        self._peer = "unknown"

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - asyncio has several kinds
        """Begin the handshake."""
        self._peer = peer_of(transport)
        super().connection_made(transport)

    def _tell(self, done: asyncio.Future[Any]) -> None:
        error = None if done.cancelled() else done.exception()
        if isinstance(error, ssl.SSLError):
            self._tally.add(REFUSED, self._peer, _REASONS.get(error.reason or "", _OTHER))
