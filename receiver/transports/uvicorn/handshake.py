"""Why a TLS handshake failed, in the words that an operator is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ssl

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


def reason_of(error: ssl.SSLError) -> str:
    """Return the reason by which refused senders are counted."""
    return _REASONS.get(error.reason or "", _OTHER)
