"""Logs that come before the cluster has told of their pod, through a server that watches it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from recording import collect, wait_until
from serving import Serving

from framewalk.engine import Store, load_plan
from framewalk.engine.wire import access_log_pb2 as pb

WAIT_S = 8
# On a slow machine a pod may be put too late: it is tried again with another.
IN_TIME_S = 3
MOST_TRIES = 20
SLOW_S = 300

# A name, an address, and since when the pod has it.
Put = Callable[[str, str, float], object]


def check_pods_that_are_learnt_of_late(folder: Path, kubeconfig: Path, put: Put) -> None:
    """Send logs of pods that are `put` after them: they are named, and nothing waits for them.

    The pods are those of the Service `late` in the namespace `shop`.
    """
    definitions = folder / "few.oal"
    definitions.write_text("calls = from(K8SServiceRelation.*).cpm();\n", encoding="utf-8")
    put("known", "10.1.0.1", time.time() - 30)
    server = Serving(
        folder,
        "--kubernetes",
        "--kubeconfig",
        kubeconfig,
        FRAMEWALK_OAL_PATHS=str(definitions),
        FRAMEWALK_NAME_WAIT_SECONDS=str(WAIT_S),
    )
    try:
        server.wait_for("engine ready")
        number = 1
        while not is_put_in_time(server, number, put) and number < MOST_TRIES:
            number += 1
        assert server.stop() == 0
    finally:
        server.process.kill()
    with Store(server.store, load_plan(definitions)) as store:
        sql = "SELECT source_service, dest_service FROM service_relation_minute"
        called = dict(store.query(sql).fetchall())
    assert called[f"early-{number}"] == "late.shop"
    assert called[f"known-{number}"] in {"late.shop", "Unknown"}


def is_put_in_time(server: Serving, number: int, put: Put) -> bool:
    """Send a log of a pod, then put it; returns whether it waited for that."""
    began_s = time.monotonic()
    before = server.metrics().get("framewalk_engine_messages", 0)
    collect(server.address, [message(f"early-{number}", f"10.1.1.{number}")])
    collect(server.address, [message(f"known-{number}", "10.1.0.1")])
    # The one that is known does not wait for the other, if the watch has told of it.
    wait_until(lambda: server.metrics()["framewalk_engine_messages"] > before, SLOW_S)
    put(f"late-{number}", f"10.1.1.{number}", time.time() - 30)
    is_in_time = time.monotonic() - began_s < IN_TIME_S
    wait_until(lambda: server.metrics()["framewalk_engine_messages"] == before + 2, SLOW_S)
    return is_in_time


def message(name: str, ip: str) -> bytes:
    """Return a message of a pod of the Service `name` that has just called an address."""
    now_ns = time.time_ns()
    made = pb.EBPFAccessLogMessage()
    made.node.name = "node"
    made.node.bootTime.seconds = now_ns // 10**9 - 1_000
    made.connection.local.kubernetes.serviceName = name
    made.connection.remote.ip.host = ip
    made.connection.remote.ip.port = 80
    offset_ns = 1_000 * 10**9 + now_ns % 10**9
    made.kernelLogs.add().write.startTime.offset.offset = offset_ns
    return made.SerializeToString()
