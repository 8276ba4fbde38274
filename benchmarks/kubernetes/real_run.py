"""A watch beside a real API server and etcd: what is done to them, and how soon the table is right.

    python benchmarks/kubernetes/real_run.py FOLDER [RESULT]

FOLDER has the programs `kube-apiserver` and `etcd`, as `make apiserver` puts them there. Prints a
table of events; ends with 1 where the table was not right in time.
"""

from __future__ import annotations

import base64
import json
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import polars as pl
import yaml

from framewalk.engine.kubernetes import ClusterAccess, LiveEntities

if TYPE_CHECKING:
    from collections.abc import Callable

ADMIN = "admin-token"
NAMESPACE = "shop"
UP_S = 1.0
BACK_S = 10.0
END_S = 120


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class Servers:
    """etcd and kube-apiserver; with a certificate, a token file and keys of their own."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        self.etcd_port, self.peer_port, self.port = free_port(), free_port(), free_port()
        self.api: subprocess.Popen[bytes] | None = None
        self.tokens = {"first": "watcher", ADMIN: "admin"}
        self._keys()
        self.write_tokens()
        self.etcd = subprocess.Popen(
            [
                programs / "etcd",
                f"--data-dir={folder / 'etcd'}",
                f"--listen-client-urls=http://127.0.0.1:{self.etcd_port}",
                f"--advertise-client-urls=http://127.0.0.1:{self.etcd_port}",
                f"--listen-peer-urls=http://127.0.0.1:{self.peer_port}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{self.peer_port}",
                f"--initial-cluster=default=http://127.0.0.1:{self.peer_port}",
            ],
            stderr=(folder / "etcd.log").open("wb"),
            stdout=subprocess.DEVNULL,
        )
        self.start()

    def _keys(self) -> None:
        def openssl(*arguments: str) -> None:
            subprocess.run(
                ["openssl", *arguments], cwd=self.folder, check=True, capture_output=True
            )

        openssl("genrsa", "-out", "sa.key", "2048")
        certificate = ("-keyout", "tls.key", "-out", "tls.crt", "-subj", "/CN=127.0.0.1")
        name = ("-addext", "subjectAltName=IP:127.0.0.1")
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *certificate, *name)

    def write_tokens(self) -> None:
        lines = [
            f"{token},{user},{user}" + (',"system:masters"' if user == "admin" else "")
            for token, user in self.tokens.items()
        ]
        (self.folder / "tokens.csv").write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        self.api = subprocess.Popen(
            [
                self.programs / "kube-apiserver",
                f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
                "--bind-address=127.0.0.1",
                f"--secure-port={self.port}",
                "--tls-cert-file=tls.crt",
                "--tls-private-key-file=tls.key",
                "--service-account-key-file=sa.key",
                "--service-account-signing-key-file=sa.key",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--token-auth-file=tokens.csv",
                "--authorization-mode=RBAC",
                "--disable-admission-plugins=ServiceAccount",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--etcd-compaction-interval=0",
                "--allow-privileged=true",
            ],
            cwd=self.folder,
            stderr=(self.folder / "apiserver.log").open("ab"),
            stdout=subprocess.DEVNULL,
        )
        wait_for(self.is_ready, 180)

    def is_ready(self) -> bool:
        try:
            with self.client() as client:
                return client.get("/readyz", timeout=2).status_code == 200
        except httpx2.HTTPError:
            return False

    def client(self) -> httpx2.Client:
        import ssl  # noqa: PLC0415

        return httpx2.Client(
            base_url=f"https://127.0.0.1:{self.port}",
            verify=ssl.create_default_context(cafile=str(self.folder / "tls.crt")),
            headers={"Authorization": f"Bearer {ADMIN}"},
            timeout=20,
        )

    def stop_api(self) -> None:
        if self.api is not None:
            self.api.kill()
            self.api.wait()
            self.api = None

    def close(self) -> None:
        self.stop_api()
        self.etcd.kill()
        self.etcd.wait()

    def ask_etcd(self, path: str, **body: Any) -> Any:  # noqa: ANN401
        url = f"http://127.0.0.1:{self.etcd_port}/v3/kv/{path}"
        request = urllib.request.Request(url, json.dumps(body).encode())
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return json.load(answer)

    def compact(self) -> None:
        """Forget all that etcd knows of before now."""
        made = self.ask_etcd("put", key=encoded("framewalk"), value=encoded("now"))
        self.ask_etcd("compaction", revision=made["header"]["revision"], physical=True)

    def lose_pod(self, name: str) -> None:
        """Delete a pod in etcd: no watch is told."""
        key = encoded(f"/registry/pods/{NAMESPACE}/{name}")
        assert self.ask_etcd("deleterange", key=key)["deleted"] == "1"

    def kubeconfig(self) -> Path:
        (self.folder / "token").write_text("first")
        cluster = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority": str(self.folder / "tls.crt"),
        }
        config = {
            "current-context": "here",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"tokenFile": str(self.folder / "token")}}],
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        }
        path = self.folder / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path


def wait_for(condition: Callable[[], object], end_s: float = END_S) -> float:
    """Return how long it took, in seconds; end where it took too long."""
    started_s = time.monotonic()
    while not condition():
        if time.monotonic() - started_s > end_s:
            raise SystemExit("not right in time")
        time.sleep(0.01)
    return time.monotonic() - started_s


class Cluster:
    """Objects, made and changed as controllers and kubelets do."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers

    def ask(self, method: str, path: str, body: Any = None, **more: str) -> Any:  # noqa: ANN401
        with self.servers.client() as client:
            answer = client.request(method, path, json=body, headers=more or None)
        answer.raise_for_status()
        return answer.json()

    def path(self, plural: str, name: str = "") -> str:
        return f"/api/v1/namespaces/{NAMESPACE}/{plural}/{name}".rstrip("/")

    def set_up(self) -> None:
        metadata = {"metadata": {"name": NAMESPACE}}
        self.ask("POST", "/api/v1/namespaces", metadata)
        manifest = Path(__file__).parents[2] / "docs" / "kubernetes" / "framewalk.yaml"
        (rules,) = [
            one["rules"]
            for one in yaml.safe_load_all(manifest.read_text(encoding="utf-8"))
            if one["kind"] == "ClusterRole"
        ]
        group = "/apis/rbac.authorization.k8s.io/v1"
        named = {"metadata": {"name": "framewalk"}}
        self.ask("POST", f"{group}/clusterroles", {**named, "rules": rules})
        binding = {
            **named,
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "framewalk",
            },
            "subjects": [{"kind": "User", "name": "watcher"}],
        }
        self.ask("POST", f"{group}/clusterrolebindings", binding)

    def pod(self, name: str, ip: str, app: str, since_s: float | None = None) -> None:
        spec = {"containers": [{"name": "c", "image": "i"}], "nodeName": "n1"}
        labels = {"name": name, "labels": {"app": app}}
        self.ask("POST", self.path("pods"), {"metadata": labels, "spec": spec})
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since_s))
        ready = {"type": "PodReadyToStartContainers", "status": "True", "lastTransitionTime": since}
        status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [ready]}
        merge = {"Content-Type": "application/merge-patch+json"}
        self.ask("PATCH", f"{self.path('pods', name)}/status", {"status": status}, **merge)

    def delete_pod(self, name: str) -> None:
        self.ask("DELETE", self.path("pods", name), {"gracePeriodSeconds": 0})

    def service(self, name: str, app: str) -> str:
        spec = {"selector": {"app": app}, "ports": [{"port": 80}]}
        made = self.ask("POST", self.path("services"), {"metadata": {"name": name}, "spec": spec})
        return str(made["spec"]["clusterIP"])

    def select(self, name: str, app: str) -> None:
        merge = {"Content-Type": "application/merge-patch+json"}
        self.ask(
            "PATCH", self.path("services", name), {"spec": {"selector": {"app": app}}}, **merge
        )


class Run:
    """Does one thing after the other, and notes how soon the table was right."""

    def __init__(self, live: LiveEntities, truth: dict[str, str | None]) -> None:
        self.live, self.truth = live, truth
        self.rows: list[tuple[str, float, float]] = []

    def is_right(self) -> bool:
        time_ns = time.time_ns()
        ips = list(self.truth)
        asked = pl.DataFrame({"ip": ips, "time_ns": [time_ns] * len(ips), "port": [80] * len(ips)})
        return list(self.live.entities.lookup(asked)["service"]) == list(self.truth.values())

    def note(self, event: str, limit_s: float) -> None:
        took_s = wait_for(self.is_right)
        self.rows.append((event, took_s, limit_s))
        print(f"{event:60} {took_s:7.3f} s (at most {limit_s:g} s)", flush=True)


def events(servers: Servers, run: Run, cluster: Cluster) -> None:
    truth = run.truth
    truth[cluster.service("cart", "cart")] = f"cart.{NAMESPACE}"
    run.note("a Service is created", UP_S)
    for number in range(20):
        cluster.pod(f"cart-{number}", f"10.0.0.{number}", "cart")
        truth[f"10.0.0.{number}"] = f"cart.{NAMESPACE}"
    run.note("20 pods are created", UP_S)
    truth[cluster.service("pay", "pay")] = f"pay.{NAMESPACE}"
    cluster.pod("pay-0", "10.0.1.0", "pay")
    truth["10.0.1.0"] = f"pay.{NAMESPACE}"
    run.note("another Service with a pod", UP_S)
    cluster.select("pay", "nobody")
    truth["10.0.1.0"] = None
    run.note("its selector changes", UP_S)
    cluster.select("pay", "pay")
    truth["10.0.1.0"] = f"pay.{NAMESPACE}"
    run.note("and changes back", UP_S)
    cluster.delete_pod("cart-0")
    truth["10.0.0.0"] = None
    run.note("a pod is deleted", UP_S)
    cluster.pod("pay-1", "10.0.0.0", "pay")
    truth["10.0.0.0"] = f"pay.{NAMESPACE}"
    run.note("its address goes to a pod of another Service", UP_S)
    servers.stop_api()
    time.sleep(20)
    assert run.is_right()
    servers.start()
    cluster.pod("cart-20", "10.0.0.20", "cart")
    truth["10.0.0.20"] = f"cart.{NAMESPACE}"
    run.note("the API server is away for 20 s and comes back", BACK_S)
    servers.compact()
    for number in range(21, 24):
        cluster.pod(f"cart-{number}", f"10.0.0.{number}", "cart")
        truth[f"10.0.0.{number}"] = f"cart.{NAMESPACE}"
    run.note("etcd is compacted while the watch is up", UP_S)
    before_gone(servers, run, cluster)
    servers.stop_api()
    servers.tokens = {"second": "watcher", ADMIN: "admin"}
    servers.write_tokens()
    servers.start()
    cluster.pod("cart-30", "10.0.0.30", "cart")
    time.sleep(3)
    assert run.is_right(), "what was known stays while the token is refused"
    truth["10.0.0.30"] = f"cart.{NAMESPACE}"
    (servers.folder / "token").write_text("second")
    run.note("the token is revoked, and a new one is there", BACK_S)


def before_gone(servers: Servers, run: Run, cluster: Cluster) -> None:
    """Delete and compact while the API server is down: only a new list can tell (410)."""
    servers.stop_api()
    servers.lose_pod("cart-1")
    servers.compact()
    servers.start()
    run.truth["10.0.0.1"] = None
    run.note("etcd is compacted and a pod deleted meanwhile (410)", BACK_S)
    cluster.pod("pay-2", "10.0.0.1", "pay")
    run.truth["10.0.0.1"] = f"pay.{NAMESPACE}"
    run.note("its address goes to a pod of another Service", UP_S)


def churn(run: Run, cluster: Cluster) -> tuple[float, float]:
    """Create and delete 500 pods; return the resident memory before and after, in MiB."""

    def resident_mib() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20

    before = resident_mib()
    for number in range(250):
        cluster.pod(f"job-{number}", "10.0.9.9", "cart")
        cluster.delete_pod(f"job-{number}")
    run.truth["10.0.9.9"] = None
    run.note("250 pods came and went at one address", UP_S)
    return before, resident_mib()


def main() -> None:
    programs = Path(sys.argv[1]).resolve()
    folder = Path(tempfile.mkdtemp())
    servers = Servers(programs, folder)
    try:
        cluster = Cluster(servers)
        cluster.set_up()
        access = ClusterAccess(servers.kubeconfig())
        with LiveEntities((), time.time(), accesses=[access]) as live:
            assert live.wait_listed(30)
            run = Run(live, {})
            events(servers, run, cluster)
            before, after = churn(run, cluster)
        print(f"resident memory: {before:.0f} MiB, after the churn {after:.0f} MiB")
        if len(sys.argv) > 2:
            rows = [f"| {event} | {took:.2f} | {limit:g} |" for event, took, limit in run.rows]
            Path(sys.argv[2]).write_text("\n".join(rows) + "\n", encoding="utf-8")
        late = [event for event, took_s, limit_s in run.rows if took_s > limit_s]
        if late:
            raise SystemExit(f"late: {late}")
    finally:
        servers.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
