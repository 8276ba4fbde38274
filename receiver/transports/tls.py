"""The files of a TLS server: read, checked, and read again when they change."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from framewalk.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from framewalk.receiver.transports.options import Tls

_LOG: Final = logging.getLogger(__name__)

_T = TypeVar("_T")

HTTP_1: Final = ("http/1.1",)
HTTP_2: Final = ("h2",)


class Pem(NamedTuple):
    """The contents of the files; `roots` are the authorities of client certificates."""

    key: bytes
    chain: bytes
    roots: bytes | None


class TlsFiles:
    """Key and certificates as they are now, and whether they have changed.

    Raises InputError where they are of no use.
    """

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._stamps = self._stat()
        self.context()

    def context(self, alpn: Sequence[str] = ()) -> ssl.SSLContext:
        """Return a server's context of what is in the files now; raise InputError if it cannot be.

        With authorities, clients must have a certificate of one of them.
        """
        chain, key = self._tls.certificate_chain_path, self._tls.key_path
        trusted = self._tls.trusted_ca_path
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A session that is resumed is not checked against the files again.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        try:
            # A key under a password is of no use: nobody is asked for it.
            context.load_cert_chain(chain, key, password="")
        except ssl.SSLError as error:
            problem = f"this is no PEM certificate of the key {key}"
            raise InputError(chain, problem, "give a key and its certificate") from error
        if trusted is not None:
            try:
                context.load_verify_locations(trusted)
            except ssl.SSLError as error:
                raise InputError(trusted, "this is no PEM certificate", "give one") from error
            context.verify_mode = ssl.CERT_REQUIRED
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def pem(self) -> Pem:
        """Return what is in the files now; raise InputError if it is of no use."""
        self.context()
        trusted = self._tls.trusted_ca_path
        return Pem(
            self._tls.key_path.read_bytes(),
            self._tls.certificate_chain_path.read_bytes(),
            trusted.read_bytes() if trusted is not None else None,
        )

    def if_changed(self, read: Callable[[], _T]) -> _T | None:
        """Return what `read` makes of the files, or None where they are as they were.

        Half-replaced or wrong files change nothing: the old certificate serves until the next
        change.
        """
        try:
            stamps = self._stat()
            if stamps == self._stamps:
                return None
            self._stamps = stamps
            made = read()
        except (OSError, InputError) as error:
            _LOG.warning("TLS files changed and cannot be used", extra={"facts": {"error": error}})
            return None
        _LOG.info("TLS files read again")
        return made

    def _stat(self) -> list[tuple[int, int]]:
        paths = [self._tls.key_path, self._tls.certificate_chain_path, self._tls.trusted_ca_path]
        stats = [path.stat() for path in paths if path is not None]
        return [(stat.st_mtime_ns, stat.st_ino) for stat in stats]


def server_ssl_context(tls: Tls, alpn: Sequence[str] = HTTP_2) -> ssl.SSLContext:
    """Return a context for a server whose new connections follow the files when they change.

    Raises:
        InputError: the files are of no use.
        OSError: they cannot be read.
    """
    return _FollowingContext(tls, alpn)


class _FollowingContext(ssl.SSLContext):
    """Hands each new connection over to a context that was made of the files as they are.

    A context of its own for each state of the files: one that loads a file of authorities again
    trusts the old ones too.
    """

    def __new__(cls, tls: Tls, alpn: Sequence[str]) -> _FollowingContext:  # noqa: ARG004, PYI034 - as __init__; ssl has no Self
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, tls: Tls, alpn: Sequence[str]) -> None:
        self._files = TlsFiles(tls)
        self._alpn = alpn
        self._current = self._files.context(alpn)

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:  # noqa: ANN401 - handed on
        return self._followed().wrap_bio(*arguments, **options)

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:  # noqa: ANN401 - handed on
        return self._followed().wrap_socket(*arguments, **options)

    def _followed(self) -> ssl.SSLContext:
        changed = self._files.if_changed(lambda: self._files.context(self._alpn))
        self._current = changed or self._current
        return self._current
