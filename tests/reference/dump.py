"""The Kubernetes entity table: what `kubectl get pods,services -A` printed, looked up by IP."""

import ipaddress
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NO_IP = ("", "None")


@dataclass(frozen=True)
class Service:
    """A Service: its name, when it starts to count, and which pods it selects."""

    namespace: str
    name: str
    starts: int | None
    selector: dict[str, str]
    ips: tuple[str, ...]


@dataclass(frozen=True)
class Pod:
    """A pod: its name, from when to when it counts, and its labels."""

    namespace: str
    name: str
    starts: int | None
    ends: int | None
    labels: dict[str, str]
    ips: tuple[str, ...]


Owner = TypeVar("Owner", Service, Pod)


@dataclass(frozen=True)
class Found:
    """What an IP address stood for; `service` is None for a pod without a Service."""

    namespace: str
    service: str | None
    pod: str | None


class Directory:
    """Services and pods, looked up by IP as of a moment."""

    def __init__(self, services: Sequence[Service], pods: Sequence[Pod]) -> None:
        self.services = sorted(services, key=lambda s: (s.namespace, s.name))
        self.services_by_ip: dict[str, list[Service]] = defaultdict(list)
        self.pods_by_ip: dict[str, list[Pod]] = defaultdict(list)
        for service in self.services:
            for ip in set(service.ips):
                self.services_by_ip[ip].append(service)
        for pod in pods:
            for ip in set(pod.ips):
                self.pods_by_ip[ip].append(pod)

    def find(self, host: str, at_ns: int) -> Found | None:
        """Return what `host` stood for at `at_ns`, or None."""
        ip = plain_ip(host)
        if ip is None:
            return None
        service = _latest(self.services_by_ip.get(ip, []), at_ns)
        if service is not None:
            return Found(service.namespace, service.name, None)
        pod = _latest(self.pods_by_ip.get(ip, []), at_ns)
        if pod is None or (pod.ends is not None and at_ns >= pod.ends):
            return None
        return Found(pod.namespace, self._service_of(pod), pod.name)

    def _service_of(self, pod: Pod) -> str | None:
        for service in self.services:
            if service.namespace == pod.namespace and _selects(service.selector, pod.labels):
                return service.name
        return None


def load_dump(source: str | Path | Sequence[str | Path]) -> Directory:
    """Read a dump: a `str` is its text, a `Path` its file, a sequence several of these."""
    sources = [source] if isinstance(source, (str, Path)) else list(source)
    texts = [s.read_text("utf-8") if isinstance(s, Path) else s for s in sources]
    objects: dict[tuple[Any, ...], Service | Pod] = {}
    for text in texts:
        for item in _items(text):
            made = _object_of(item)
            if made is not None:
                objects[type(made), made.namespace, made.name, made.starts] = made
    services = [o for o in objects.values() if isinstance(o, Service)]
    pods = [o for o in objects.values() if isinstance(o, Pod)]
    return Directory(services, pods)


def plain_ip(host: str) -> str | None:
    """Return the one spelling of an IP address, or None where `host` is none."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)


def _latest(candidates: Sequence[Owner], at_ns: int) -> Owner | None:
    started = [c for c in candidates if c.starts is None or c.starts <= at_ns]
    return max(started, key=_order, default=None)


def _order(owner: Service | Pod) -> tuple[bool, int, str, str]:
    return owner.starts is not None, owner.starts or 0, owner.namespace, owner.name


def _items(text: str) -> Iterator[dict[str, Any]]:
    if text.lstrip().startswith("{"):
        documents = [json.loads(text)]
    else:
        documents = list(yaml.load_all(text, Loader=yaml.CSafeLoader))
    for document in documents:
        if document is None:
            continue
        if str(document.get("kind", "")).endswith("List"):
            yield from _list_items(document)
        else:
            yield document


def _list_items(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    kind = document["kind"].removesuffix("List")
    for item in document.get("items") or []:
        yield {"kind": kind, **item} if kind else item


def _object_of(item: dict[str, Any]) -> Service | Pod | None:
    if item.get("kind") == "Service":
        return _service(item)
    if item.get("kind") == "Pod":
        return _pod(item)
    return None


def _service(item: dict[str, Any]) -> Service:
    meta, spec, status = _parts(item)
    ingress = (status.get("loadBalancer") or {}).get("ingress") or []
    hosts = [spec.get("clusterIP"), *(spec.get("clusterIPs") or [])]
    hosts += [entry.get("ip") for entry in ingress]
    return Service(
        namespace=meta.get("namespace") or "default",
        name=meta["name"],
        starts=_moment(meta.get("creationTimestamp")),
        selector=spec.get("selector") or {},
        ips=_ips(hosts),
    )


def _pod(item: dict[str, Any]) -> Pod:
    meta, spec, status = _parts(item)
    hosts = [status.get("podIP")]
    hosts += [entry.get("ip") for entry in status.get("podIPs") or []]
    return Pod(
        namespace=meta.get("namespace") or "default",
        name=meta["name"],
        starts=_moment(meta.get("creationTimestamp")),
        ends=_end(status),
        labels=meta.get("labels") or {},
        ips=() if spec.get("hostNetwork") else _ips(hosts),
    )


def _parts(item: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    return item["metadata"], item.get("spec") or {}, item.get("status") or {}


def _ips(hosts: Sequence[str | None]) -> tuple[str, ...]:
    known = [plain_ip(host) for host in hosts if host and host not in NO_IP]
    return tuple(ip for ip in known if ip is not None)


def _end(status: dict[str, Any]) -> int | None:
    if status.get("phase") not in ("Succeeded", "Failed"):
        return None
    lists = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    containers = [c for name in lists for c in status.get(name) or []]
    finished = [
        _moment(((c.get("state") or {}).get("terminated") or {}).get("finishedAt"))
        for c in containers
    ]
    return max((moment for moment in finished if moment is not None), default=None)


def _moment(value: str | datetime | None) -> int | None:
    if value is None:
        return None
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = moment - EPOCH
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1_000


def _selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())
