"""Who gets an answer: whoever shows the token, and no web page but those of a name of its own."""

from __future__ import annotations

import base64
import hmac
import ipaddress
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from framewalk.queries.serving.options import ServingOptions

# Kinds of refusals: a time limit, framewalk's own rules, a missing token, all else.
LATE_KIND: Final = "late"
REFUSED_KIND: Final = "refused"
TOKEN_KIND: Final = "token"  # noqa: S105 - the name of a kind
REQUEST_KIND: Final = "request"

_LOCAL_NAMES: Final = ("localhost", "localhost.localdomain", "ip6-localhost")
# What this is, it tells everybody that reaches it; the files of the page hold nothing of a store.
_OPEN_PATHS: Final = ("/", "/ui")
_OPEN_FOLDER: Final = "/ui/"


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault
    """An answer in words, with a status of HTTP."""

    def __init__(
        self, status: HTTPStatus, problem: str, remedy: str, kind: str = REQUEST_KIND
    ) -> None:
        """Keep the parts; `kind` is one of those above, or of sql_endpoint/protocol.py."""
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
    must be an address, or a name that only this machine or its owner gives. A page that is served
    under the same address as the answers, behind somebody's proxy, is one of theirs.
    """

    def __init__(self, app: ASGIApp, options: ServingOptions) -> None:
        """Stand before an application."""
        self._app = app
        self._token = options.token
        self._answers_pages = options.answers_pages
        self._given_names = frozenset(options.host_names)
        self._names = {*_LOCAL_NAMES, options.host.lower(), *options.host_names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        refusal = self._refusal(Headers(scope=scope), scope["path"])
        app = self._app if refusal is None else refusal.response()
        await app(scope, receive, send)

    def _refusal(self, headers: Headers, path: str) -> Refusal | None:
        is_open = path in _OPEN_PATHS or path.startswith(_OPEN_FOLDER)
        if self._is_strange(headers) and not (is_open and _is_link(headers)):
            problem = "requests of web pages are not answered"
            remedy = "ask with a program, such as curl"
            if self._answers_pages:
                problem = "requests of other servers' web pages are not answered"
                remedy = (
                    "serve it under the same address, or set the server's hostNames to its host"
                )
            return Refusal(HTTPStatus.FORBIDDEN, problem, remedy)
        if self._token is None and not self._is_known(headers.get("host", "")):
            problem = "the Host of this request is a name that framewalk does not know"
            remedy = "ask by IP address, or give the server a token"
            if self._answers_pages:
                remedy = "ask by IP address, or set the server's hostNames to it"
            return Refusal(HTTPStatus.MISDIRECTED_REQUEST, problem, remedy)
        if self._token and not is_open and not _shows(headers, self._token):
            problem = "this server asks for a token, and this request shows another one or none"
            remedy = "send the header `Authorization: Bearer TOKEN`"
            return Refusal(HTTPStatus.UNAUTHORIZED, problem, remedy, TOKEN_KIND)
        return None

    def _is_strange(self, headers: Headers) -> bool:
        """Tell whether a web page asks, and not one of ours."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        if origin is None:
            return site not in {"none", "same-origin"}
        if not self._answers_pages:
            return True
        if site == "same-origin" or _host(origin.partition("//")[2]) in self._given_names:
            return False
        return origin.partition("//")[2] != headers.get("host")

    def _is_known(self, host: str) -> bool:
        name = _host(host)
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _is_link(headers: Headers) -> bool:
    """Tell whether somebody followed a link, so that what comes is a page of its own."""
    followed = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest"))
    return "origin" not in headers and followed == ("navigate", "document")


def _host(place: str) -> str:
    """Return the host of `host:port`; nothing where it is none."""
    try:
        return urlsplit(f"//{place}").hostname or ""
    except ValueError:
        return ""


def _shows(headers: Headers, token: str) -> bool:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    # As senders of gRPC show theirs.
    shown = headers.get("authentication", "")
    match scheme.lower():
        case "bearer":
            shown = credentials.strip()
        case "basic":
            shown = _password(credentials.strip())
    return hmac.compare_digest(shown.encode("latin-1", "replace"), token.encode())


def _password(credentials: str) -> str:
    """Return the password of basic credentials: clients have a field for it, whoever the user."""
    try:
        return base64.b64decode(credentials, validate=True).decode("latin-1").partition(":")[2]
    except ValueError:
        return ""
