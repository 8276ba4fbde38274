"""What a watch of 10,000 pods and 2,000 Services costs with 100 changes a second.

    python benchmarks/kubernetes/watch_load.py [SECONDS]

The API server is the tests' small one, in a process of its own, over real HTTP.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
PODS, SERVICES, CHANGES_PER_S = 10_000, 2_000, 100


def serve(folder: Path) -> None:
    from api_server import ApiServer  # noqa: PLC0415
    from test_watch import pod, service  # noqa: PLC0415

    with ApiServer() as api:
        for number in range(SERVICES):
            ip = f"10.96.{number >> 8}.{number & 255}"
            api.put(service(f"s{number}", ip, f"a{number}"))
        for number in range(PODS):
            api.put(
                pod(f"p{number}", f"10.{number >> 8}.1.{number & 255}", f"a{number % SERVICES}")
            )
        api.kubeconfig(folder).rename(folder / "ready")
        at_s, change = time.monotonic(), 0
        while True:
            number = change % PODS
            ip = f"10.{number >> 8}.{2 + change // PODS}.{number & 255}"
            api.put(pod(f"p{number}", ip, f"a{number % SERVICES}"))
            for events in api.events.values():
                del events[:-1000]
            change += 1
            at_s += 1 / CHANGES_PER_S
            time.sleep(max(at_s - time.monotonic(), 0))


def main() -> None:
    from framewalk.engine.kubernetes import ClusterAccess, LiveEntities  # noqa: PLC0415

    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60
    folder = Path(tempfile.mkdtemp())
    server = subprocess.Popen([sys.executable, __file__, "--serve", folder])
    try:
        while not (folder / "ready").exists():
            time.sleep(0.1)
        access = ClusterAccess(folder / "ready")
        with LiveEntities((), time.time(), access=access) as live:
            assert live.wait_listed(60)
            watch = live._watch  # noqa: SLF001
            began, began_s, changes = time.process_time(), time.monotonic(), watch.changes
            tables, before = 0, live.entities
            while time.monotonic() - began_s < seconds:
                time.sleep(1)
                live.take()
                tables += live.entities is not before
                before = live.entities
            took_s = time.monotonic() - began_s
            share = (time.process_time() - began) / took_s
            seen = (watch.changes - changes) / took_s
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{share:.1%} of a core, {seen:.0f} changes/s, {tables} tables, {peak_mib:.0f} MiB")
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]))
    else:
        main()
