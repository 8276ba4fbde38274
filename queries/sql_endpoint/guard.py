"""Who gets an answer from the SQL endpoint: whoever shows the token, and no web page."""

from __future__ import annotations

import hmac
import ipaddress
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response

from framewalk.queries.sql_endpoint.protocol import REQUEST_KIND, TOKEN_KIND

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from framewalk.queries.sql_endpoint.options import SqlOptions

_LOCAL_NAMES: Final = ("localhost", "localhost.localdomain", "ip6-localhost")
# What this is, it tells everybody that reaches it.
_OPEN_PATH: Final = "/"


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault
    """An answer in words, with a status of HTTP."""

    def __init__(
        self, status: HTTPStatus, problem: str, remedy: str, kind: str = REQUEST_KIND
    ) -> None:
        """Keep the parts; `kind` is one of sql_protocol.py."""
        super().__init__(f"{problem}; {remedy}")
        self.status = status
        self.problem = problem
        self.remedy = remedy
        self.kind = kind

    def response(self) -> Response:
        """Return it as JSON."""
        content = {
            "error": str(self),
            "kind": self.kind,
            "problem": self.problem,
            "remedy": self.remedy,
        }
        headers = {}
        if self.status is HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        if self.status is HTTPStatus.SERVICE_UNAVAILABLE:
            headers["Retry-After"] = "1"
        return _Line(content, self.status, headers)


class _Line(JSONResponse):
    """JSON that ends a line, for whoever reads it in a terminal."""

    def render(self, content: object) -> bytes:
        return super().render(content) + b"\n"


class Guard:
    """Refuses what does not show the token, and what a browser sends for a web page.

    A page of a stranger cannot read an answer, as none allows it to; but a name of its own that
    it lets point here (DNS rebinding) would make it one of our pages. So without a token the Host
    must be an address, or a name that only this machine or its owner gives.
    """

    def __init__(self, app: ASGIApp, options: SqlOptions) -> None:
        """Stand before an application."""
        self._app = app
        self._token = options.token
        self._names = {*_LOCAL_NAMES, options.host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        refusal = self._refusal(Headers(scope=scope), scope["path"])
        app = self._app if refusal is None else refusal.response()
        await app(scope, receive, send)

    def _refusal(self, headers: Headers, path: str) -> Refusal | None:
        if "origin" in headers or headers.get("sec-fetch-site", "none") not in {
            "none",
            "same-origin",
        }:
            problem = "requests of web pages are not answered"
            return Refusal(HTTPStatus.FORBIDDEN, problem, "ask with a program, such as curl")
        if self._token is None and not self._is_known(headers.get("host", "")):
            problem = "the Host of this request is a name that framewalk does not know"
            remedy = "ask by IP address, or give the server a token"
            return Refusal(HTTPStatus.MISDIRECTED_REQUEST, problem, remedy)
        if self._token and path != _OPEN_PATH and not _shows(headers, self._token):
            problem = "this server asks for a token, and this request shows another one or none"
            remedy = "send the header `Authorization: Bearer TOKEN`"
            return Refusal(HTTPStatus.UNAUTHORIZED, problem, remedy, TOKEN_KIND)
        return None

    def _is_known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _shows(headers: Headers, token: str) -> bool:
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    # As senders of gRPC show theirs.
    plain = headers.get("authentication", "")
    shown = bearer.strip() if scheme.lower() == "bearer" else plain
    return hmac.compare_digest(shown.encode("latin-1"), token.encode())
