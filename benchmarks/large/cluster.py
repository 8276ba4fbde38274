"""Who is in a large cluster, who calls whom, and what kubectl prints of it.

Everything follows from the number of services: five pods, twenty endpoints and ten callees each,
and every pod calls one pod of each callee of its service.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

PODS: Final = 5
ENDPOINTS: Final = 20
CALLEES: Final = 10
FEWEST_SERVICES: Final = 12

PORT: Final = 8_080
SERVICE_PORT: Final = 80
# What both ends of a service's paths are made of: all of one length.
PATH_BYTES: Final = 26

_PODS_PER_NODE: Final = 50
_SERVICES_PER_NAMESPACE: Final = 50
_EPHEMERAL: Final = 32_768
_CREATED: Final = "2026-09-01T08:00:00Z"
_WORDS: Final = (
    "account",
    "billing",
    "catalog",
    "checkout",
    "customer",
    "delivery",
    "discount",
    "fraud",
    "identity",
    "inventory",
    "invoice",
    "ledger",
    "loyalty",
    "mailer",
    "notice",
    "offer",
    "order",
    "partner",
    "payment",
    "pricing",
    "profile",
    "quota",
    "rating",
    "receipt",
    "refund",
    "report",
    "review",
    "routing",
    "search",
    "session",
    "shipment",
    "stock",
    "support",
    "tax",
    "tenant",
    "voucher",
)
_KINDS: Final = ("api", "worker", "gateway", "store", "sync")
_RESOURCES: Final = (
    "accounts",
    "articles",
    "balances",
    "branches",
    "brackets",
    "carriers",
    "channels",
    "contacts",
    "counters",
    "discount",
    "invoices",
    "messages",
    "packages",
    "payments",
    "products",
    "receipts",
    "requests",
    "schedule",
    "settings",
    "vouchers",
)


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod; `node` is the index of the node where it runs."""

    name: str
    address: str
    node: int


@dataclass(frozen=True, slots=True)
class Service:
    """A service, its pods, and its endpoints' paths."""

    name: str
    namespace: str
    address: str
    pods: tuple[Pod, ...]
    paths: tuple[str, ...]

    @property
    def full_name(self) -> str:
        """What Rover calls it."""
        return f"{self.name}.{self.namespace}"


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pods that call each other, an element each: indices of pods, and the caller's port."""

    caller: np.ndarray
    callee: np.ndarray
    caller_port: np.ndarray

    def __len__(self) -> int:
        """Count the pairs."""
        return len(self.caller)


@dataclass(frozen=True, slots=True)
class Cluster:
    """All of it; pod p is one of service p // PODS."""

    services: tuple[Service, ...]
    nodes: int

    @property
    def pods(self) -> list[Pod]:
        """The pods of all services, in order."""
        return [pod for service in self.services for pod in service.pods]

    def node_name(self, node: int) -> str:
        """Return what the node calls itself."""
        return f"node-{node:04d}"


def make_cluster(services: int) -> Cluster:
    """Lay out a cluster; raises ValueError for too few services."""
    if services < FEWEST_SERVICES:
        message = f"{services} services are too few: at least {FEWEST_SERVICES}"
        raise ValueError(message)
    nodes = max(2, services * PODS // _PODS_PER_NODE)
    return Cluster(tuple(_service(number, nodes) for number in range(services)), nodes)


def pairs_of(cluster: Cluster) -> Pairs:
    """Return who calls whom: CALLEES times PODS pairs for each service."""
    count = len(cluster.services)
    service, step, pod = (
        one.ravel()
        for one in np.meshgrid(np.arange(count), np.arange(CALLEES), np.arange(PODS), indexing="ij")
    )
    callee = (service + (step + 1) * count // (CALLEES + 1)) % count
    ports = _EPHEMERAL + (service * 7 + step * PODS + pod) % 28_000
    return Pairs(service * PODS + pod, callee * PODS + (pod + step) % PODS, ports)


def write_dump(cluster: Cluster, path: Path) -> None:
    """Write `kubectl get pods,services,endpointslices,nodes -A -o json`."""
    items = [
        item
        for number, service in enumerate(cluster.services)
        for item in (*_pods(cluster, service), _service_item(service), _slice(service, number))
    ]
    items += [_node(cluster.node_name(node), node) for node in range(cluster.nodes)]
    listing = {"apiVersion": "v1", "kind": "List", "items": items}
    path.write_text(json.dumps(listing, separators=(",", ":")), encoding="utf-8")


def _service(number: int, nodes: int) -> Service:
    word, kind = _WORDS[number % len(_WORDS)], _KINDS[number // len(_WORDS) % len(_KINDS)]
    name = f"{word}-{kind}-{number:04d}"
    pods = tuple(_pod(name, number * PODS + copy, nodes) for copy in range(PODS))
    paths = tuple(f"/api/v{1 + number % 3}/{resource}-{number:04d}/list" for resource in _RESOURCES)
    return Service(
        name,
        f"team-{number // _SERVICES_PER_NAMESPACE:02d}",
        f"10.32.{number >> 8}.{number & 255}",
        pods,
        paths,
    )


def _pod(service: str, number: int, nodes: int) -> Pod:
    digest = hashlib.blake2b(f"{service} {number}".encode(), digest_size=8).hexdigest()
    address = f"10.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
    return Pod(f"{service}-{_template_of(service)}-{digest[:5]}", address, number % nodes)


def _template_of(service: str) -> str:
    return hashlib.blake2b(service.encode(), digest_size=5).hexdigest()


def _pods(cluster: Cluster, service: Service) -> list[dict[str, Any]]:
    template = _template_of(service.name)
    owner = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": f"{service.name}-{template}",
        "controller": True,
        "uid": _uid(f"{service.name}-{template}"),
    }
    container = {
        "name": service.name,
        "image": f"registry.example.org/{service.name}:1",
        "ports": [{"containerPort": PORT, "protocol": "TCP"}],
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": _metadata(pod.name, service.namespace, {"app": service.name})
            | {"ownerReferences": [owner]},
            "spec": {"nodeName": cluster.node_name(pod.node), "containers": [container]},
            "status": {
                "phase": "Running",
                "hostIP": _node_address(pod.node),
                "podIP": pod.address,
                "podIPs": [{"ip": pod.address}],
                "startTime": _CREATED,
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": _CREATED}],
            },
        }
        for pod in service.pods
    ]


def _service_item(service: Service) -> dict[str, Any]:
    port = {"name": "http", "port": SERVICE_PORT, "targetPort": PORT, "protocol": "TCP"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(service.name, service.namespace, {}),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": service.address,
            "clusterIPs": [service.address],
            "selector": {"app": service.name},
            "ports": [port],
        },
    }


def _slice(service: Service, number: int) -> dict[str, Any]:
    endpoints = [
        {
            "addresses": [pod.address],
            "conditions": {"ready": True},
            "nodeName": f"node-{pod.node:04d}",
            "targetRef": {"kind": "Pod", "name": pod.name, "namespace": service.namespace},
        }
        for pod in service.pods
    ]
    labels = {"kubernetes.io/service-name": service.name}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": _metadata(f"{service.name}-{number:05d}", service.namespace, labels),
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": PORT, "protocol": "TCP"}],
    }


def _node(name: str, number: int) -> dict[str, Any]:
    addresses = [
        {"type": "InternalIP", "address": _node_address(number)},
        {"type": "Hostname", "address": name},
    ]
    metadata = {"name": name, "uid": _uid(name), "creationTimestamp": _CREATED}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": metadata,
        "spec": {},
        "status": {"addresses": addresses},
    }


def _node_address(number: int) -> str:
    return f"10.1.{number >> 8}.{number & 255}"


def _metadata(name: str, namespace: str, labels: dict[str, str]) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": namespace,
        "uid": _uid(f"{namespace}/{name}"),
        "creationTimestamp": _CREATED,
        "labels": labels,
    }


def _uid(of: str) -> str:
    digits = hashlib.blake2b(of.encode(), digest_size=16).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
