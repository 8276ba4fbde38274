"""A watch beside a real API server, where `make apiserver` has built one."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from api_server import ApiServer

ROOT = Path(__file__).parent.parent
PROGRAMS = ROOT / "build" / "apiserver"
REAL_RUN = ROOT / "benchmarks" / "kubernetes"

needs_programs = pytest.mark.skipif(
    not all((PROGRAMS / name).exists() for name in ("kube-apiserver", "etcd")),
    reason="no API server is built: make apiserver",
)


@needs_programs
def test_the_table_is_right_whatever_happens_to_the_api_server() -> None:
    script = REAL_RUN / "real_run.py"
    done = subprocess.run(
        [sys.executable, script, PROGRAMS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.syspath_prepend(ROOT / "tests" / "receiver")
    from early_logs import check_pods_that_are_learnt_of_late  # noqa: PLC0415 - in another folder

    return check_pods_that_are_learnt_of_late


@pytest.fixture
def real_run(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(REAL_RUN)
    return importlib.import_module("real_run")


@needs_programs
# The logs of both servers stay open as long as they do.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_pods_that_a_real_api_server_tells_of_after_their_logs(
    tmp_path: Path, real_run: ModuleType, check: Callable[..., None]
) -> None:
    servers = real_run.Servers(PROGRAMS, tmp_path)
    try:
        cluster = real_run.Cluster(servers)
        cluster.set_up()
        cluster.service("late", "late")
        check(
            tmp_path,
            servers.kubeconfig(),
            lambda name, ip, since_s: cluster.pod(name, ip, "late", since_s),
        )
    finally:
        servers.close()


def test_pods_that_are_learnt_of_after_their_logs(
    tmp_path: Path, check: Callable[..., None]
) -> None:
    with ApiServer() as api:
        spec = {"clusterIP": "10.96.0.1", "selector": {"app": "late"}, "ports": [{"port": 80}]}
        metadata = {"namespace": "shop", "name": "late"}
        api.put({"kind": "Service", "apiVersion": "v1", "metadata": metadata, "spec": spec})
        check(
            tmp_path,
            api.kubeconfig(tmp_path),
            lambda name, ip, since_s: api.put(pod(name, ip, since_s)),
        )


def pod(name: str, ip: str, since_s: float) -> dict[str, Any]:
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since_s))
    ready = {"type": "PodReadyToStartContainers", "status": "True", "lastTransitionTime": since}
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "namespace": "shop",
            "name": name,
            "labels": {"app": "late"},
            "creationTimestamp": since,
        },
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running", "podIP": ip, "conditions": [ready]},
    }
