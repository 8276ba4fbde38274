"""A small API server: lists in pages, watches with bookmarks, over real sockets."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import yaml

PATHS = {
    "Pod": "/api/v1/pods",
    "Service": "/api/v1/services",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/endpointslices",
    "Node": "/api/v1/nodes",
}
Event = tuple[int, str, dict[str, Any]]


class ApiServer:
    """What it holds is changed by `put` and `delete`; `port` stays over a restart."""

    def __init__(self, page_objects: int = 500) -> None:
        self.changed = threading.Condition()
        self.version = 100
        self.oldest = 0
        self.objects: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in PATHS}
        self.events: dict[str, list[Event]] = {kind: [] for kind in PATHS}
        self.page_objects = page_objects
        self.token = "first"  # noqa: S105
        self.refused: dict[str, int] = {}
        self.held: set[str] = set()
        # Without it events come as a busy server sends them: each whole, a bookmark each minute.
        self.is_fussy = True
        self.lists = dict.fromkeys(PATHS, 0)
        self.watched: dict[str, list[str]] = {kind: [] for kind in PATHS}
        self.statuses: list[int] = []
        self.cut = 0
        self.raw: list[bytes] = []
        self.port = 0
        self.server: ThreadingHTTPServer | None = None
        self.start()

    def start(self) -> None:
        self.is_up = True
        server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        server.daemon_threads = True
        self.port = server.server_address[1]
        self.server = server
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        with self.changed:
            self.is_up = False
            self.changed.notify_all()
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def put(self, one: dict[str, Any]) -> None:
        kind, name = (
            one["kind"],
            f"{one['metadata'].get('namespace', '')}/{one['metadata']['name']}",
        )
        with self.changed:
            self.version += 1
            one = json.loads(json.dumps(one))
            one["metadata"]["resourceVersion"] = str(self.version)
            one["metadata"]["managedFields"] = [{"manager": "x" * 500}]
            happened = "MODIFIED" if name in self.objects[kind] else "ADDED"
            self.objects[kind][name] = one
            self.events[kind].append((self.version, happened, one))
            self.changed.notify_all()

    def delete(self, kind: str, name: str) -> None:
        with self.changed:
            self.version += 1
            one = json.loads(json.dumps(self.objects[kind].pop(name)))
            one["metadata"]["resourceVersion"] = str(self.version)
            self.events[kind].append((self.version, "DELETED", one))
            self.changed.notify_all()

    def cut_watches(self) -> None:
        with self.changed:
            self.cut += 1
            self.changed.notify_all()

    def release(self, kind: str) -> None:
        """Answer the lists of a kind that was held."""
        with self.changed:
            self.held.discard(kind)
            self.changed.notify_all()

    def compact(self) -> None:
        """Forget all events: who asks for older ones is answered 410."""
        with self.changed:
            self.version += 1
            self.oldest = self.version
            for events in self.events.values():
                events.clear()

    def say(self, line: bytes) -> None:
        """Send a line to all who watch Pods."""
        with self.changed:
            self.raw.append(line)
            self.changed.notify_all()

    def kubeconfig(self, folder: Path) -> Path:
        """Write a configuration whose token is in a file of its own."""
        (folder / "token").write_text(self.token)
        user = {"tokenFile": str(folder / "token")}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        }
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path


def _handler(api: ApiServer) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - it is a class
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            with suppress(OSError):
                self.answer()

        def answer(self) -> None:
            url = urlsplit(self.path)
            asked = {name: values[0] for name, values in parse_qs(url.query).items()}
            kinds = [kind for kind, path in PATHS.items() if path == url.path]
            if self.headers.get("Authorization") != f"Bearer {api.token}":
                self.status(401)
            elif not kinds:
                self.status(404)
            elif asked.get("watch"):
                self.watch(kinds[0], int(asked["resourceVersion"]))
            else:
                self.list(kinds[0], asked)

        def status(self, code: int) -> None:
            api.statuses.append(code)
            self.body({"kind": "Status", "code": code, "message": "no"}, code)

        def body(self, value: object, code: int = 200) -> None:
            content = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def list(self, kind: str, asked: dict[str, str]) -> None:
            with api.changed:
                api.changed.wait_for(lambda: kind not in api.held or not api.is_up)
                if code := api.refused.pop(kind, 0):
                    self.status(code)
                    return
                start = int(asked.get("continue") or 0)
                items = list(api.objects[kind].values())
                api.lists[kind] += start == 0
                end = start + min(api.page_objects, int(asked["limit"]))
                metadata = {"resourceVersion": str(api.version)}
                if end < len(items):
                    metadata["continue"] = str(end)
            # The items of a list have no kind.
            bare = [{k: v for k, v in one.items() if k != "kind"} for one in items[start:end]]
            self.body({"kind": f"{kind}List", "metadata": metadata, "items": bare})

        def has_news(self, kind: str, version: int, cut: int, said: int) -> bool:
            return (
                api.cut != cut
                or not api.is_up
                or (kind == "Pod" and len(api.raw) > said)
                or any(event[0] > version for event in api.events[kind])
            )

        def watch(self, kind: str, version: int) -> None:
            with api.changed:
                if version < api.oldest:
                    self.status(410)
                    return
                api.watched[kind].append(str(version))
                cut, said = api.cut, len(api.raw)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.flush()
            while True:
                until_s = time.monotonic() + 60
                with api.changed:
                    while not self.has_news(kind, version, cut, said):
                        api.changed.wait(None if api.is_fussy else 1)
                        if not api.is_fussy and time.monotonic() > until_s:
                            break
                    if api.cut != cut or not api.is_up:
                        self.close_connection = True
                        return
                    events = [event for event in api.events[kind] if event[0] > version]
                    raw = api.raw[said:] if kind == "Pod" else []
                    said = len(api.raw)
                    version = max(api.version, version)
                lines = [
                    json.dumps({"type": happened, "object": one}).encode()
                    for _, happened, one in events
                ]
                mark = {"kind": kind, "metadata": {"resourceVersion": str(version)}}
                bookmark = json.dumps({"type": "BOOKMARK", "object": mark}).encode()
                content = b"".join(line + b"\n" for line in [*lines, *raw, bookmark])
                # In two pieces, in the middle of a line.
                pieces = [content[:7], content[7:]]
                for piece in (
                    pieces if api.is_fussy else [line + b"\n" for line in lines or [bookmark]]
                ):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    self.wfile.flush()

    return Handler
