"""Who is at an IP address, by a dump: one reading of the rules, one question at a time.

Written from the specification (analysis.md section 2) and docs/semantics.md; nothing is prepared,
so nothing can be prepared wrongly. Only what was asked of the same address between two moments that
any object names is remembered. One dump, or several that were made at the same moment.
"""

import ipaddress
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NO_IP = ("", "None")
FOREVER = float("inf")
Item = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """What an IP address stood for; `service` is None for a pod without a Service."""

    namespace: str
    service: str | None
    pod: str | None


class Directory:
    """The objects of a dump, looked up by address as of a moment."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.services = [item for item in items if item.get("kind") == "Service"]
        self.pods = [item for item in items if item.get("kind") == "Pod"]
        self.nodes = [item for item in items if item.get("kind") == "Node"]
        self.slices = [item for item in items if item.get("kind") == "EndpointSlice"]
        moments = {since(item) for item in (*self.services, *self.pods, *self.slices)}
        for pod in self.pods:
            moments |= {begin(pod), may_have_begun(pod), end(pod)}
        self._moments = sorted(moments)
        self._found: dict[tuple[str, int, bool, int], Found | None] = {}

    def find(self, host: str, at_ns: int, port: int = 0, *, is_called: bool = True) -> Found | None:
        """Return what `host` stood for at `at_ns`, or None."""
        key = (host, port, is_called, bisect_right(self._moments, at_ns))
        if key not in self._found:
            self._found[key] = self._find(host, at_ns, port, is_called=is_called)
        return self._found[key]

    def _find(  # noqa: PLR0911 - as many answers as there are rules
        self, host: str, at_ns: int, port: int, *, is_called: bool
    ) -> Found | None:
        ip = plain_ip(host)
        if ip is None:
            return None
        there = [one for one in self.services if since(one) <= at_ns]
        own = latest(one for one in there if ip in cluster_ips(one))
        if own is not None:
            return self._service(own, at_ns)
        outer = [one for one in there if is_called and ip in outer_ips(one)]
        with_port = latest(one for one in outer if port and port in ports(one, "port", "TCP"))
        with_port = with_port or latest(one for one in outer if port in ports(one, "port"))
        if with_port is not None:
            return self._service(with_port, at_ns)
        on_node = self._at_node(ip, at_ns, port) if is_called and port else None
        if on_node is not None and on_node.service:
            return on_node
        pod = self._pod_at(ip, at_ns)
        if pod is not None and pod.service:
            return pod
        listed = self._listed(ip, at_ns, port) if is_called else None
        if listed is not None:
            return listed
        if on_node is not None or pod is not None:
            return on_node or pod
        if ip in self.node_ips():
            asked = there if is_called and port else []
            with_tcp = latest(one for one in asked if port in ports(one, "nodePort", "TCP"))
            node_port = with_tcp or latest(one for one in asked if port in ports(one, "nodePort"))
            return None if node_port is None else self._service(node_port, at_ns)
        any_port = latest(one for one in outer if not (one.get("spec") or {}).get("ports"))
        return None if any_port is None else self._service(any_port, at_ns)

    def node_ips(self) -> set[str]:
        """Return the addresses of all nodes."""
        found = {
            entry.get("address")
            for node in self.nodes
            for entry in (node.get("status") or {}).get("addresses") or []
            if entry.get("type") in ("InternalIP", "ExternalIP")
        }
        for pod in self.pods:
            status = pod.get("status") or {}
            found |= {status.get("hostIP")} | {e.get("ip") for e in status.get("hostIPs") or []}
            if (pod.get("spec") or {}).get("hostNetwork"):
                found |= set(pod_ips(pod))
        return set(plain_ips(sorted(host for host in found if host)))

    def _pod_at(self, ip: str, at_ns: int) -> Found | None:
        pods = [
            pod
            for pod in self.pods
            if ip in pod_ips(pod) and not (pod.get("spec") or {}).get("hostNetwork")
        ]
        return self._holder([pod for pod in pods if may_have_begun(pod) <= at_ns < end(pod)], at_ns)

    def _at_node(self, ip: str, at_ns: int, port: int) -> Found | None:
        pods = [
            pod for pod in self.pods if port in host_ports(pod) and ip in self._ips_of_node(pod)
        ]
        return self._holder([pod for pod in pods if may_have_begun(pod) <= at_ns < end(pod)], at_ns)

    def _holder(self, pods: list[Item], at_ns: int) -> Found | None:
        """Of those that may have it, take the one that got it last, before it may only have it."""

        def how_well(pod: Item) -> tuple[Any, ...]:
            is_firm = begin(pod) <= at_ns and not (is_over(pod) and end(pod) == FOREVER)
            return is_firm, begin(pod), space(pod), pod["metadata"]["name"]

        pod = max(pods, key=how_well, default=None)
        if pod is None:
            return None
        return Found(space(pod), self.name_of(pod, at_ns), pod["metadata"]["name"])

    def _ips_of_node(self, pod: Item) -> set[str]:
        spec, status = pod.get("spec") or {}, pod.get("status") or {}
        hosts = [status.get("hostIP"), *(e.get("ip") for e in status.get("hostIPs") or [])]
        for node in self.nodes:
            if node["metadata"]["name"] == spec.get("nodeName"):
                addresses = (node.get("status") or {}).get("addresses") or []
                wanted = ("InternalIP", "ExternalIP")
                hosts += [e["address"] for e in addresses if e.get("type") in wanted]
        own = pod_ips(pod) if spec.get("hostNetwork") else ()
        return {*own, *plain_ips(hosts)}

    def _listed(self, ip: str, at_ns: int, port: int) -> Found | None:
        """Return the Service without a selector whose newest slice has an address and a port."""
        found: dict[str, tuple[Item, Item]] = {}
        with_port = []
        for one in self.slices:
            listed = [int(each["port"]) for each in one.get("ports") or [] if each.get("port")]
            hosts = [host for e in one.get("endpoints") or [] for host in e.get("addresses") or []]
            service = self._behind(one)
            if service is None or ip not in plain_ips(hosts) or since(one) > at_ns:
                continue
            if port in listed:
                with_port.append(one)
            if port in listed or (not listed and ip not in self.node_ips()):
                found[f"{space(one)}/{one['metadata']['name']}"] = one, service
        chosen = latest(with_port) or latest(one for one, _ in found.values())
        if chosen is None:
            return None
        _, service = found[f"{space(chosen)}/{chosen['metadata']['name']}"]
        return self._service(service, at_ns)

    def _behind(self, one: Item) -> Item | None:
        """Return the Service of a slice, if it selects nothing."""
        name = (one["metadata"].get("labels") or {}).get("kubernetes.io/service-name")
        return next(
            (
                service
                for service in self.services
                if service["metadata"]["name"] == name
                and space(service) == space(one)
                and not (service.get("spec") or {}).get("selector")
            ),
            None,
        )

    def name_of(self, pod: Item, at_ns: float) -> str | None:
        """Return the name of the Service after which Rover names a pod at a moment."""
        selecting = [one for one in self.services if selects(one, pod)]
        known = [one for one in selecting if since(one) <= at_ns]
        if not known and selecting:
            # Before all of them: after those that came first.
            first = max(min(map(since, selecting)), since(pod))
            known = [one for one in selecting if since(one) <= first]
        names = [one["metadata"]["name"] for one in known]
        return min(names, key=lambda name: (len(name), name), default=None)

    def _service(self, service: Item, at_ns: int) -> Found:
        own = service["metadata"]["name"]
        names = {
            self.name_of(pod, at_ns)
            for pod in self.pods
            if selects(service, pod) and since(pod) <= at_ns < end(pod)
        }
        name = names.pop() if len(names) == 1 else None
        return Found(space(service), name or own, None)


def load_dump(source: str | Path | Sequence[str | Path]) -> Directory:
    """Read a dump: a `str` is its text, a `Path` its file, a sequence several of these."""
    sources = [source] if isinstance(source, (str, Path)) else list(source)
    texts = [s.read_text("utf-8") if isinstance(s, Path) else s for s in sources]
    objects: dict[tuple[Any, ...], Item] = {}
    for text in texts:
        for item in _items(text):
            metadata = item.get("metadata") or {}
            key = (item.get("kind"), metadata.get("namespace"), metadata.get("name"))
            objects[*key, str(metadata.get("creationTimestamp"))] = item
    return Directory(list(objects.values()))


def plain_ip(host: str) -> str | None:
    """Return the one spelling of an IP address, or None where `host` is none."""
    head, colon, tail = host.rpartition(":")
    if "." in tail and all(part.isdigit() and part.isascii() for part in tail.split(".")):
        tail = ".".join(str(int(part)) for part in tail.split("."))
    try:
        address = ipaddress.ip_address(head + colon + tail)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)


def plain_ips(hosts: Sequence[str | None]) -> list[str]:
    """Return the addresses among some words."""
    known = [plain_ip(host) for host in hosts if host and host not in NO_IP]
    return [ip for ip in known if ip is not None]


def cluster_ips(service: Item) -> list[str]:
    """Return the addresses that the cluster gave to a Service."""
    spec = service.get("spec") or {}
    return plain_ips([spec.get("clusterIP"), *(spec.get("clusterIPs") or [])])


def outer_ips(service: Item) -> list[str]:
    """Return external addresses and those of load balancers."""
    spec, status = service.get("spec") or {}, service.get("status") or {}
    ingress = (status.get("loadBalancer") or {}).get("ingress") or []
    return plain_ips([*(spec.get("externalIPs") or []), *(entry.get("ip") for entry in ingress)])


def pod_ips(pod: Item) -> list[str]:
    """Return the addresses of a pod."""
    status = pod.get("status") or {}
    return plain_ips([status.get("podIP"), *(e.get("ip") for e in status.get("podIPs") or [])])


def ports(service: Item, name: str, protocol: str = "") -> set[int]:
    """Return the ports of a Service, or those of nodes that lead to it."""
    return {
        int(one[name])
        for one in (service.get("spec") or {}).get("ports") or []
        if one.get(name) and (not protocol or one.get("protocol", "TCP") == protocol)
    }


def host_ports(pod: Item) -> set[int]:
    """Return the ports of its node that a pod declares."""
    spec = pod.get("spec") or {}
    name = "containerPort" if spec.get("hostNetwork") else "hostPort"
    containers = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
    declared = [port for container in containers for port in container.get("ports") or []]
    return {
        int(port[name]) for port in declared if port.get(name) and port.get("protocol") != "UDP"
    }


def latest(services: Any) -> Item | None:  # noqa: ANN401 - an iterable of items
    """Return the Service that was created last."""
    key = lambda one: (since(one), space(one), one["metadata"]["name"])  # noqa: E731
    return max(services, key=key, default=None)


def selects(service: Item, pod: Item) -> bool:
    """Tell whether a Service selects a pod."""
    selector = (service.get("spec") or {}).get("selector") or {}
    labels = pod["metadata"].get("labels") or {}
    same = all(labels.get(key) == value for key, value in selector.items())
    return bool(selector) and same and space(service) == space(pod)


def space(item: Item) -> str:
    """Return the namespace of an object."""
    return item["metadata"].get("namespace") or "default"


def since(item: Item) -> float:
    """Return when an object was created."""
    created = moment(item["metadata"].get("creationTimestamp"))
    return -FOREVER if created is None else created


def is_over(pod: Item) -> bool:
    """Tell whether a pod has ended."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def may_have_begun(pod: Item) -> float:
    """Return from when on a pod may have had its addresses."""
    exact, known = _evidence(pod)
    started = moment((pod.get("status") or {}).get("startTime"))
    if exact is not None:
        return exact
    begun = since(pod) if started is None or not plausible(pod, started) else started
    return min([begun, *known])


def begin(pod: Item) -> float:
    """Return from when on a pod had its addresses."""
    exact, known = _evidence(pod)
    return exact if exact is not None else min(known, default=may_have_begun(pod))


def plausible(pod: Item, time_ns: float | None) -> bool:
    """Tell whether something can have happened to a pod then; clocks differ by a minute."""
    return time_ns is not None and time_ns > 0 and time_ns >= since(pod) - 60 * 10**9


def _evidence(pod: Item) -> tuple[float | None, list[float]]:
    status = pod.get("status") or {}
    conditions = {
        one.get("type"): moment(one.get("lastTransitionTime"))
        for one in status.get("conditions") or []
        if one.get("status") == "True"
    }
    for name in ("PodReadyToStartContainers", "PodHasNetwork"):
        if plausible(pod, conditions.get(name)):
            return conditions[name], []
    states = [
        (container.get(which) or {}).get(kind) or {}
        for container in _containers(pod)
        for which, kind in (
            ("state", "running"),
            ("state", "terminated"),
            ("lastState", "terminated"),
        )
    ]
    starts = [moment(state.get("startedAt")) for state in states]
    if not any(plausible(pod, start) for start in starts):
        starts = [conditions.get(name) for name in ("ContainersReady", "Ready")]
    return None, [start for start in starts if start is not None and plausible(pod, start)]


def _containers(pod: Item) -> list[Item]:
    status = pod.get("status") or {}
    lists = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    return [container for name in lists for container in status.get(name) or []]


def end(pod: Item) -> float:
    """Return when a pod ended; never, where nothing says so."""
    if not is_over(pod):
        return FOREVER
    ended = [
        state["terminated"]
        for state in (container.get("state") or {} for container in _containers(pod))
        if state.get("terminated") is not None
    ]

    def can_be(time_ns: int | None) -> bool:
        return time_ns is not None and time_ns > 0 and time_ns >= since(pod)

    finished = [moment(one.get("finishedAt")) for one in ended]
    known = [time_ns for time_ns in finished if can_be(time_ns)]
    if not known or len(known) < len(finished):
        names = ("PodReadyToStartContainers", "PodHasNetwork", "ContainersReady", "Ready")
        known += [
            moment(one.get("lastTransitionTime"))
            for one in (pod.get("status") or {}).get("conditions") or []
            if one.get("type") in names
            and one.get("status") == "False"
            and can_be(moment(one.get("lastTransitionTime")))
        ]
    deleted = moment(pod["metadata"].get("deletionTimestamp"))
    if not known and can_be(deleted):
        known = [deleted]
    return max(known, default=FOREVER)


def _items(text: str) -> Iterator[Item]:
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


def _list_items(document: Item) -> Iterator[Item]:
    kind = document["kind"].removesuffix("List")
    for item in document.get("items") or []:
        yield {"kind": kind, **item} if kind else item


def moment(value: str | datetime | None) -> int | None:
    """Return a time in ns since 1970."""
    if value is None:
        return None
    time = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    passed = time - EPOCH
    return (passed.days * 86_400 + passed.seconds) * 10**9 + passed.microseconds * 1_000
