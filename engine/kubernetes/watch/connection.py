"""The connection to an API server: its address, TLS and credentials are lightkube's.

Lists and watches are asked for here, as lightkube's own build every object with all its fields, and
one that is odd ends them.
"""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from framewalk.engine.errors import EntitiesError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import httpx2

_LONGEST_LINE_BYTES: Final = 16 * 2**20
_LONGEST_PAGE_BYTES: Final = 256 * 2**20
_LONGEST_PROBLEM: Final = 200
_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_GATHER_S: Final = 0.25
_SHORT_S: Final = 0.02
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_GONE: Final = 410
_OK: Final = 200


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things may take, in seconds.

    A watch ends after `watch_s` by itself; one that says nothing for `silent_s`, not even that
    nothing happened, is taken for dead.
    """

    connect_s: float = 3
    answer_s: float = 30
    watch_s: float = 290
    silent_s: float = 150
    first_pause_s: float = 0.25
    longest_pause_s: float = 3


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """Which API server is watched.

    Without a `kubeconfig` it is that of the cluster in which this runs, else that of $KUBECONFIG
    or of ~/.kube/config. An empty `context` is the file's current one. `cluster` is the
    `clusterName` of the nodes that it is for (empty: all that have no other).
    """

    kubeconfig: Path | None = None
    context: str = ""
    cluster: str = ""
    timing: Timing = field(default_factory=Timing)

    def __str__(self) -> str:
        where = str(self.kubeconfig or "the Kubernetes API server")
        return f"{where} (context {self.context})" if self.context else where


class Context(NamedTuple):
    """A context of a kubeconfig, and the `clusterName` of the nodes that it is for."""

    cluster: str
    context: str


def context_of(text: str) -> Context:
    """Read `CONTEXT` or `NAME=CONTEXT`; an empty context is the current one."""
    cluster, sign, context = text.partition("=")
    return Context(cluster.strip(), context.strip()) if sign else Context("", text.strip())


class ApiError(Exception):
    """The API server is away, or refuses; `is_answer` tells that it did answer."""

    def __init__(self, problem: str, *, is_answer: bool = False) -> None:
        self.is_answer = is_answer
        super().__init__(problem)


class GoneError(ApiError):
    """What was asked for is too old (410): it has to be listed again."""


class Connection:
    """An HTTP client of one API server; to be closed.

    Raises EntitiesError where the extra is not installed or the configuration cannot be used.
    """

    def __init__(self, access: ClusterAccess) -> None:
        self._timing = access.timing
        self._client = _client(access)

    async def close(self) -> None:
        """Close all its sockets."""
        await self._client.aclose()

    async def get(self, path: str, parameters: Mapping[str, str]) -> Any:  # noqa: ANN401
        """Return what is answered; raises ApiError."""
        async with self._answer(path, parameters, self._timing.answer_s) as answer:
            content = bytearray()
            async for piece in answer.aiter_bytes():
                content += piece
                if len(content) > _LONGEST_PAGE_BYTES:
                    problem = f"{path}: the answer is longer than {_LONGEST_PAGE_BYTES:,} bytes"
                    raise ApiError(problem, is_answer=True)
            return parsed(bytes(content), path)

    @asynccontextmanager
    async def lines(
        self, path: str, parameters: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Give the lines of an answer that goes on; raises ApiError."""
        async with self._answer(path, parameters, self._timing.silent_s) as answer:
            yield _lines(answer, path)

    @asynccontextmanager
    async def _answer(
        self, path: str, parameters: Mapping[str, str], silent_s: float
    ) -> AsyncIterator[httpx2.Response]:
        import httpx2  # noqa: PLC0415
        from lightkube.core.exceptions import ConfigError  # noqa: PLC0415

        timeout = httpx2.Timeout(self._timing.answer_s, connect=self._timing.connect_s)
        timeout.read = silent_s
        try:
            async with self._client.stream(
                "GET", path, params=dict(parameters), timeout=timeout
            ) as answer:
                if answer.status_code != _OK:
                    raise await _refused(answer, path)
                yield answer
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise ApiError(f"{path}: {type(error).__name__}: {error}"[:_LONGEST_PROBLEM]) from error
        except (ConfigError, ValueError, KeyError) as error:
            problem = f"credentials cannot be had: {error}"[:_LONGEST_PROBLEM]
            raise ApiError(problem) from error


def parsed(content: bytes, place: str) -> Any:  # noqa: ANN401
    """Parse JSON; raises ApiError where it is none."""
    import msgspec  # noqa: PLC0415

    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ApiError(f"{place}: no JSON: {error}"[:_LONGEST_PROBLEM], is_answer=True) from error


async def _lines(answer: httpx2.Response, path: str) -> AsyncIterator[bytes]:
    rest = bytearray()
    rested_s = read_s = time.monotonic()
    is_encoded = "content-encoding" in answer.headers
    async for piece in answer.aiter_bytes() if is_encoded else answer.aiter_raw():
        now_s = time.monotonic()
        if now_s - read_s > _SHORT_S / 4 and now_s - rested_s > _SHORT_S:
            # It was waited for. What comes meanwhile is read at once: to wake up for each event
            # costs more than to read it.
            await asyncio.sleep(_GATHER_S)
            rested_s = time.monotonic()
        rest += piece
        if b"\n" in piece:
            whole, _, last = bytes(rest).rpartition(b"\n")
            rest = bytearray(last)
            for line in whole.split(b"\n"):
                yield line
        elif len(rest) > _LONGEST_LINE_BYTES:
            problem = f"{path}: an event is longer than {_LONGEST_LINE_BYTES:,} bytes"
            raise ApiError(problem, is_answer=True)
        read_s = time.monotonic()


async def _refused(answer: httpx2.Response, path: str) -> ApiError:
    status = answer.status_code
    if status == _GONE:
        return GoneError(f"{path}: 410 Gone", is_answer=True)
    remedies = {
        _UNAUTHORIZED: "; the credentials are not valid (any more)",
        _FORBIDDEN: f"; let the account list and watch {path.rpartition('/')[2]}",
    }
    problem = f"{path}: {status} {answer.reason_phrase}{remedies.get(status, '')}"
    return ApiError(problem, is_answer=True)


def _client(access: ClusterAccess) -> httpx2.AsyncClient:
    try:
        import httpx2  # noqa: PLC0415
        from lightkube.config import client_adapter  # noqa: PLC0415
        from lightkube.core.exceptions import ConfigError  # noqa: PLC0415
        from msgspec import MsgspecError  # noqa: PLC0415
    except ImportError as error:
        problem = f"the client is not installed ({error.name})"
        raise EntitiesError(str(access), problem, "pip install 'framewalk[kubernetes]'") from error
    try:
        config = _config(access)
        command = config.user.exec if config.user is not None else None
        if command is not None and command.apiVersion == "client.authentication.k8s.io/v1":
            # Its credential says the same as that of v1beta1; lightkube knows the latter only.
            command.apiVersion = "client.authentication.k8s.io/v1beta1"
        verify = (
            client_adapter.verify_cluster(config.cluster, config.user, config.abs_file)
            if config.user is not None
            else httpx2.create_ssl_context()
        )
        transport = httpx2.AsyncHTTPTransport(verify=verify, socket_options=_kept_alive())
        return httpx2.AsyncClient(
            base_url=config.cluster.server,
            auth=client_adapter.user_auth(config.user),
            transport=transport,
            timeout=access.timing.answer_s,
            headers={"Accept": "application/json", "User-Agent": "framewalk"},
        )
    except (ConfigError, OSError, ValueError, KeyError, TypeError, MsgspecError) as error:
        problem = f"cannot be used: {error}"[:_LONGEST_PROBLEM]
        remedy = "check the kubeconfig and its context, or run it with a ServiceAccount"
        raise EntitiesError(str(access), problem, remedy) from error


def _config(access: ClusterAccess) -> Any:  # noqa: ANN401 - lightkube is not there as a rule
    from lightkube.config.kubeconfig import KubeConfig  # noqa: PLC0415
    from lightkube.core.exceptions import ConfigError  # noqa: PLC0415

    if access.kubeconfig is not None:
        configs = KubeConfig.from_file(access.kubeconfig)
    elif _SERVICE_ACCOUNT.exists():
        configs = KubeConfig.from_service_account()
    else:
        configs = KubeConfig.from_env()
    config = configs.get(access.context or None)
    if config is None:
        problem = "no context is current"
        raise ConfigError(problem)
    return config


def _kept_alive() -> list[tuple[int, int, int]]:
    """Have a peer that is gone without a word found out within some 15 s."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options
