"""Small captures for property tests: mostly ordinary, with every kind of hostile input mixed in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import strategies as st

from framewalk.engine.wire import access_log_pb2 as pb

Value = TypeVar("Value")
Operation = Any
Field = Any
Draw = Callable[[st.SearchStrategy[Value]], Value]

BASE = 1_714_564_800
"""2024-05-01T12:00:00Z, the moment around which everything of the dump happens."""

NS = 10**9

HOSTILE_DUMP = """\
apiVersion: v1
kind: List
items:
- kind: Service
  metadata: {name: frontend, namespace: shop, creationTimestamp: "2024-04-01T00:00:00Z"}
  spec:
    clusterIP: 10.96.0.1
    clusterIPs: [10.96.0.1, "fd00:96::1"]
    selector: {app: frontend}
- kind: Service
  metadata: {name: cart, namespace: shop, creationTimestamp: "2024-04-01T00:00:00Z"}
  spec: {clusterIP: 10.96.0.2, selector: {app: cart}}
  status:
    loadBalancer:
      ingress:
      - {hostname: lb.example.com}
      - {ip: 203.0.113.7}
- kind: Service
  metadata: {name: cart-headless, namespace: shop, creationTimestamp: "2024-04-01T00:00:00Z"}
  spec: {clusterIP: None, clusterIPs: [None], selector: {app: cart}}
- kind: Service
  metadata: {name: back, namespace: shop, creationTimestamp: "2024-05-01T12:02:00Z"}
  spec: {clusterIP: 10.96.0.3, selector: {tier: back}}
- kind: Service
  metadata: {name: late, namespace: shop, creationTimestamp: "2024-05-01T12:01:30Z"}
  spec: {clusterIP: 10.96.0.4, selector: {app: late}}
  status:
    loadBalancer:
      ingress:
      - {ip: 10.0.0.20}
- kind: Service
  metadata: {name: aaa-everything, namespace: shop, creationTimestamp: "2024-04-01T00:00:00Z"}
  spec: {clusterIP: 10.96.0.5, selector: {}}
- kind: Service
  metadata: {name: aab-no-selector, namespace: shop, creationTimestamp: "2024-04-01T00:00:00Z"}
  spec: {clusterIP: 10.96.0.6}
- kind: Service
  metadata: {name: outside, namespace: shop, creationTimestamp: "2024-04-01T00:00:00Z"}
  spec: {type: ExternalName, externalName: db.example.com}
- kind: Service
  metadata: {name: payments, namespace: pay, creationTimestamp: "2024-04-01T00:00:00Z"}
  spec: {clusterIP: 10.96.0.7, selector: {app: payments}}
- kind: Service
  metadata: {name: strict, namespace: pay, creationTimestamp: "2024-04-01T00:00:00Z"}
  spec: {clusterIP: 10.96.0.8, selector: {app: payments, track: canary}}
- kind: Service
  metadata: {name: dns, namespace: kube-system, creationTimestamp: "2024-04-01T00:00:00Z"}
  spec: {clusterIP: 10.96.0.10, selector: {k8s-app: dns}}
- kind: Service
  metadata: {name: shared-a, namespace: shop, creationTimestamp: "2024-04-02T00:00:00Z"}
  spec: {clusterIP: 10.96.0.11}
  status: {loadBalancer: {ingress: [{ip: 203.0.113.8}]}}
- kind: Service
  metadata: {name: shared-b, namespace: pay, creationTimestamp: "2024-04-02T00:00:00Z"}
  spec: {clusterIP: 10.96.0.12}
  status: {loadBalancer: {ingress: [{ip: 203.0.113.8}]}}
- kind: Service
  metadata: {name: reused-old, namespace: shop, creationTimestamp: "2024-04-02T00:00:00Z"}
  spec: {clusterIP: 10.96.0.13}
- kind: Service
  metadata: {name: reused-new, namespace: pay, creationTimestamp: "2024-05-01T12:01:00Z"}
  spec: {clusterIP: 10.96.0.13}
- kind: Service
  metadata: {name: timeless, namespace: shop}
  spec: {clusterIP: 10.96.0.14, selector: {app: timeless}}
- kind: Service
  metadata:
    name: a-service-with-a-name-as-long-as-kubernetes-lets-it-be-63-chars-1
    namespace: and-a-namespace-with-a-long-name
    creationTimestamp: null
  spec: {clusterIP: 10.96.0.15, selector: {app: long}}
- kind: Service
  metadata:
    name: a-service-with-a-name-as-long-as-kubernetes-lets-it-be-63-chars-1
    namespace: and-a-namespace-with-another-name
  spec: {clusterIP: 10.96.0.16, selector: {app: long}}
- kind: Service
  metadata: {name: frontend-entry, namespace: shop, creationTimestamp: "2024-05-01T12:01:00Z"}
  spec:
    clusterIP: 10.96.0.17
    externalIPs: ["198.51.100.009"]
    selector: {app: frontend}
    ports: [{port: 80, nodePort: 30080}, {port: 8080, protocol: UDP}]
  status: {loadBalancer: {ingress: [{ip: 192.168.0.1}, {ip: 203.0.113.8}]}}
- kind: Service
  metadata: {name: entry-tls, namespace: pay, creationTimestamp: "2024-04-01T00:00:00Z"}
  spec:
    clusterIP: 10.96.0.18
    externalIPs: ["198.51.100.9"]
    selector: {app: payments, track: canary}
    ports: [{port: 443, nodePort: 30443}, {port: 8080}]
- kind: Service
  metadata: {name: database, namespace: shop, creationTimestamp: "2024-04-01T00:00:00Z"}
  spec: {clusterIP: None, ports: [{port: 5432}]}
- kind: EndpointSlice
  metadata:
    name: database-1
    namespace: shop
    creationTimestamp: "2024-05-01T12:01:00Z"
    labels: {kubernetes.io/service-name: database}
  addressType: IPv4
  endpoints: [{addresses: [198.51.100.5, 10.0.0.6]}, {addresses: [192.168.0.1]}]
  ports: [{port: 5432}]
- kind: Node
  metadata: {name: n1, creationTimestamp: "2024-04-01T00:00:00Z"}
  status: {addresses: [{type: InternalIP, address: 192.168.0.1}, {type: Hostname, address: n1}]}
- kind: Pod
  metadata:
    {name: exporter, namespace: pay, creationTimestamp: "2024-05-01T11:00:00Z",
     labels: {app: payments}}
  spec:
    nodeName: n1
    hostNetwork: true
    containers: [{name: main, ports: [{containerPort: 9100}, {containerPort: 80}]}]
  status: {phase: Running, podIP: 192.168.0.1}
- kind: Pod
  metadata:
    {name: frontend-1, namespace: shop, creationTimestamp: "2024-05-01T11:00:00Z",
     labels: {app: frontend, tier: front}}
  status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}
- kind: Pod
  metadata:
    {name: cart-1, namespace: shop, creationTimestamp: "2024-05-01T11:00:00Z",
     labels: {app: cart}}
  status: {phase: Running, podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.2}]}
- kind: Pod
  metadata:
    {name: payments-1, namespace: pay, creationTimestamp: "2024-05-01T12:01:00Z",
     labels: {app: payments}}
  status: {phase: Running, podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.2}]}
- kind: Pod
  metadata:
    {name: cart-2, namespace: shop, creationTimestamp: "2024-05-01T11:00:00Z",
     labels: {app: cart}}
  status:
    phase: Succeeded
    podIP: 10.0.0.3
    containerStatuses:
    - {name: main, state: {terminated: {finishedAt: "2024-05-01T12:02:00Z"}}}
    - {name: helper, state: {terminated: {finishedAt: "2024-05-01T12:01:00Z"}}}
- kind: Pod
  metadata:
    {name: cart-3, namespace: shop, creationTimestamp: "2024-05-01T11:00:00Z",
     labels: {app: cart}}
  status:
    phase: Failed
    podIP: 10.0.0.4
    containerStatuses:
    - {name: main, state: {terminated: {finishedAt: "2024-05-01T12:00:30Z"}}}
- kind: Pod
  metadata:
    {name: payments-2, namespace: pay, creationTimestamp: "2024-05-01T12:01:30Z",
     labels: {app: payments, track: canary}}
  status: {phase: Running, podIP: 10.0.0.4}
- kind: Pod
  metadata:
    {name: running-with-finished-container, namespace: shop,
     creationTimestamp: "2024-05-01T11:00:00Z", labels: {app: timeless}}
  status:
    phase: Running
    podIP: 10.0.0.10
    containerStatuses:
    - {name: main, state: {terminated: {finishedAt: "2024-05-01T12:00:30Z"}}}
- kind: Pod
  metadata:
    {name: node-agent, namespace: shop, creationTimestamp: "2024-05-01T12:01:00Z",
     labels: {app: cart}}
  spec: {hostNetwork: true}
  status: {phase: Running, podIP: 192.168.0.1, podIPs: [{ip: 192.168.0.1}]}
- kind: Pod
  metadata:
    {name: host-on-pod-ip, namespace: shop, creationTimestamp: "2024-05-01T12:01:00Z",
     labels: {app: cart}}
  spec: {hostNetwork: true}
  status: {phase: Running, podIP: 10.0.0.1}
- kind: Pod
  metadata:
    {name: loner, namespace: shop, creationTimestamp: "2024-05-01T11:00:00Z",
     labels: {app: nothing-selects-this}}
  status: {phase: Running, podIP: 10.0.0.6}
- kind: Pod
  metadata:
    {name: dns-1, namespace: kube-system, creationTimestamp: "2024-05-01T11:00:00Z",
     labels: {k8s-app: dns}}
  status: {phase: Running, podIP: 10.0.0.7}
- kind: Pod
  metadata:
    {name: system-loner, namespace: kube-system, creationTimestamp: "2024-05-01T11:00:00Z"}
  status: {phase: Running, podIP: 10.0.0.8}
- kind: Pod
  metadata: {name: no-creation, namespace: shop, labels: {app: timeless}}
  status: {phase: Running, podIP: 10.0.0.9}
- kind: Pod
  metadata:
    {name: twin-a, namespace: shop, creationTimestamp: "2024-05-01T11:30:00Z",
     labels: {app: cart}}
  status: {phase: Running, podIP: 10.0.0.11}
- kind: Pod
  metadata:
    {name: twin-b, namespace: pay, creationTimestamp: "2024-05-01T11:30:00Z",
     labels: {app: payments}}
  status: {phase: Running, podIP: 10.0.0.11}
- kind: Pod
  metadata:
    {name: many-services, namespace: shop, creationTimestamp: "2024-05-01T11:00:00Z",
     labels: {app: cart, tier: back}}
  status: {phase: Running, podIP: 10.0.0.12}
- kind: Pod
  metadata:
    {name: replaced-while-running, namespace: shop, creationTimestamp: "2024-05-01T11:00:00Z",
     labels: {app: cart}}
  status: {phase: Running, podIP: 10.0.0.13}
- kind: Pod
  metadata:
    {name: short-job, namespace: pay, creationTimestamp: "2024-05-01T12:01:00Z",
     labels: {app: payments}}
  status:
    phase: Failed
    podIP: 10.0.0.13
    containerStatuses:
    - {name: main, state: {terminated: {finishedAt: "2024-05-01T12:02:00Z"}}}
- kind: Pod
  metadata:
    {name: behind-a-load-balancer-ip, namespace: pay,
     creationTimestamp: "2024-05-01T11:00:00Z", labels: {app: payments}}
  status: {phase: Running, podIP: 10.0.0.20}
- kind: Pod
  metadata:
    {name: pending, namespace: shop, creationTimestamp: "2024-05-01T12:00:00Z",
     labels: {app: cart}}
  status: {phase: Pending}
- kind: Pod
  metadata:
    name: a-pod-with-a-name-that-is-longer-than-the-limit-of-instance-names-by-far-1
    namespace: and-a-namespace-with-a-long-name
    creationTimestamp: "2024-05-01T11:00:00Z"
    labels: {app: long}
  status: {phase: Running, podIP: 10.0.0.14}
- kind: Pod
  metadata:
    name: a-pod-with-a-name-that-is-longer-than-the-limit-of-instance-names-by-far-2
    namespace: and-a-namespace-with-a-long-name
    creationTimestamp: "2024-05-01T12:01:00Z"
    labels: {app: long}
  status: {phase: Running, podIP: 10.0.0.14}
"""

POD_IPS = tuple(f"10.0.0.{last}" for last in (1, 2, 2, 3, 4, *range(6, 15), 20))
SERVICE_IPS = (
    *(f"10.96.0.{last}" for last in (1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16)),
    "203.0.113.7",
    "203.0.113.8",
    "198.51.100.5",
    "198.51.100.9",
    "192.168.0.1",
    "192.168.0.1",
)
PORTS = (8_080, 80, 443, 5_432, 9_100, 30_080, 30_443, 0, 51_234)
ODD_IPS = (
    "10.96.000.002",
    "::ffff:010.0.0.1",
    "fd00::1",
    "fd00:96::1",
    "fd00:0096:0:0::1",
    "FD00::1",
    "::ffff:10.0.0.2",
    "::ffff:10.96.0.2",
    "::FFFF:10.0.0.1",
    "::ffff:a00:1",
    "192.168.0.1",
    "198.51.100.9",
    "10.0.0.99",
    "2001:db8::1",
    "",
    "not an address",
    "None",
    "10.0.0.1.2",
)

LOCAL_NAMES = ("frontend.shop", "cart.shop", "payments.pay", "east::cart.shop", "reviews")
REMOTE_NAMES = ("details", "ratings", "payments.pay", "cart.shop", "database")
ODD_SERVICE_NAMES = (
    "Unknown",
    "x" * 70,
    "x" * 70 + "-one",
    "x" * 70 + "-two",
    "\N{LATIN SMALL LETTER E WITH ACUTE}" * 71,
    "\N{GRINNING FACE}" * 70,
    "\N{GRINNING FACE}" * 69 + "ab",
    "\N{GRINNING FACE}" * 69 + "ac",
    "e\N{COMBINING ACUTE ACCENT}",
    " ",
    "quo\"te'd, and | more",
    "new\nline",
    "nul\0inside",
)
POD_NAMES = ("frontend-1", "cart-1", "payments-1", "reviews-1")
ODD_POD_NAMES = ("Unknown", "p" * 71, "p" * 70 + "q", "\N{GRINNING FACE}" * 75, "a\tb")

PATHS = ("/", "/details/0", "/details/1", "/cart?id=7")
ODD_PATHS = (
    "",
    "no-slash",
    "/" + "y" * 145,
    "/" + "y" * 146,
    "/" + "y" * 145 + "-one",
    "/" + "y" * 145 + "-two",
    "/" + "z" * 5_000,
    "/\N{GRINNING FACE}\N{LATIN SMALL LETTER E WITH ACUTE}",
    "/" + "\N{GRINNING FACE}" * 200,
    "/nul\0inside",
    '/"quoted"\n',
)
STATUSES = (200, 200, 200, 201, 301, 404, 500, 503)
ODD_STATUSES = (99, 100, 199, 299, 300, 399, 400, 499, 599, 600, 0, -1, 2**31 - 1, -(2**31))

UNSIGNED = (0, 2**31, 2**32 - 1, 2**53, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
SIGNED = (0, 2**31, 2**53 + 1, 2**62, 2**63 - 1, -1, -(2**31), -(2**63))
SHORT = (0, 2**31 - 1, 2**31, 2**32 - 1)
CLIENT, SERVER, PROXY = 0, 1, 2
UNKNOWN_NUMBERS = (3, 9, 77, 2**31 - 1, -1)

BOOT = BASE - 7 * 86_400
BOOTS = ((BOOT, 0), (BOOT, 1), (BOOT, 999_999_999), (BOOT + 3_600, 123_456_789))
ODD_BOOTS = (
    (0, 0),
    (-10, 0),
    (-1, 999_999_999),
    (BOOT, -5),
    (BOOT, 2**31 - 1),
    (9_223_372_036, 854_775_807),
    (9_223_372_037, 0),
    (2**63 - 1, 0),
    (-(2**63), 0),
)

MOMENTS = tuple(BASE + seconds for seconds in (0, 10, 30, 60, 75, 90, 120, 150, 180))
"""Seconds at which minutes begin, and pods and Services of the dump come and go."""

FAR_MOMENTS_NS = (0, 1, 59 * NS, 2**63 - 1, 2**63, BASE * NS + 3_600 * NS, BASE * NS + 86_400 * NS)

# 2^64 - 1: a reader that adds to it comes out at its own beginning.
OVERFLOWING_LENGTH = b"\xff" * 9 + b"\x01"

UNDECODABLE = (
    b"\xff",
    b"\x0a\x05ab",
    b"\x12\x80",
    b"\x00\x00",
    b"\x0a\x03\x0a\x01\xff",  # node.name
    b"\x0a\x04\x22\x02\xc3\x28",  # node.clusterName
    b"\x0a\x05\x2a\x03\x0a\x01\x80",  # node.policy.excludeNamespaces
    b"\x12\x09\x0a\x07\x0a\x05\x0a\x03\xed\xa0\x80",  # local serviceName, a lone surrogate
    b"\x12\x06\x12\x04\x12\x02\x0a\x05",  # remote ip, cut
    b"\x12\x07\x32\x05\x0a\x03\x0a\x01\xfe",  # real_destination_ip
    b"\x22\x07\x0a\x05\x22\x03\x12\x01\xff",  # request path
    b"\x22\x08\x0a\x06\x22\x04\x32\x02\xc0\x80",  # request host, overlong
    b"\x0a" + OVERFLOWING_LENGTH,
    b"\x7a" + OVERFLOWING_LENGTH,  # an unknown field
    b"\x1a\x0d\x22\x0b\x0a" + OVERFLOWING_LENGTH,  # startTime of a read
    b"\x22\x0d\x0a\x0b\x22\x09\x2a\x07\x12\x05abc\xe2\x82",  # traceId, cut inside a character
    b"\x1a\x09\x2a\x07\x22\x05\x22\x03\x0a\x01\xff",  # location of a lost package
    b"\x1a\x02\x0a",  # kernel logs, cut
)
UNKNOWN_FIELDS = b"\x78\x01\x82\x01\x03new"


@dataclass(frozen=True)
class HostileCapture:
    """The rows of a capture in file order: stream, seq, received_at_ns, message."""

    rows: list[tuple[int, int, int, bytes]]


@dataclass(frozen=True)
class _Spice:
    """Draws ordinary values, and one in `rarity` times an odd one."""

    draw: Draw[Any]
    rarity: int

    def chance(self, one_in: int) -> bool:
        return self.draw(st.integers(0, one_in - 1)) == one_in // 2  # the ends are drawn too often

    def pick(self, ordinary: Sequence[Value], odd: Sequence[Value], harder: int = 1) -> Value:
        return self.draw(st.sampled_from(odd if self.chance(self.rarity * harder) else ordinary))

    def below(self, limit: int) -> int:
        return self.draw(st.integers(0, limit - 1))


@st.composite
def hostile_captures(
    draw: Draw[Any], *, max_streams: int = 4, max_messages: int = 14, rarity: int = 8
) -> HostileCapture:
    """Captures of up to `max_streams` streams of up to `max_messages` messages each.

    About one choice in `rarity` is an odd one.
    """
    spice = _Spice(draw, rarity)
    streams = [
        (number, _stream(spice, 1 + spice.below(max_messages)))
        for number in draw(_stream_numbers(max_streams))
    ]
    return HostileCapture(_interleaved(spice, streams))


def node_messages() -> st.SearchStrategy[pb.EBPFAccessLogNodeInfo]:
    """Nodes, most of them with a boot time."""
    return _spiced(_node)


def connection_messages() -> st.SearchStrategy[pb.AccessLogConnection]:
    """Connections of all kinds."""
    return _spiced(_connection)


def kernel_logs() -> st.SearchStrategy[pb.AccessLogKernelLog]:
    """Kernel logs of a node that booted at `BOOT`."""
    return _spiced(lambda spice: _kernel_log(spice, BOOT * NS))


def http_logs() -> st.SearchStrategy[pb.AccessLogProtocolLogs]:
    """HTTP logs of a node that booted at `BOOT`."""
    return _spiced(lambda spice: _protocol_log(spice, BOOT * NS))


@st.composite
def _spiced(draw: Draw[Any], make: Callable[[_Spice], Value], rarity: int = 8) -> Value:
    return make(_Spice(draw, rarity))


def _stream_numbers(max_streams: int) -> st.SearchStrategy[list[int]]:
    numbers = st.sampled_from((0, 1, 2, 3, 7, 2**32, 2**63, 2**64 - 1))
    return st.lists(numbers, min_size=1, max_size=max_streams, unique=True)


def _interleaved(
    spice: _Spice, streams: list[tuple[int, list[bytes]]]
) -> list[tuple[int, int, int, bytes]]:
    left = [(number, list(enumerate(messages))) for number, messages in streams]
    mixed = spice.chance(2)
    rows = []
    while left:
        chosen = spice.below(len(left)) if mixed and len(left) > 1 else 0
        number, messages = left[chosen]
        seq, message = messages.pop(0)
        rows.append((number, seq, (BASE + 300) * NS + len(rows), message))
        if not messages:
            left.pop(chosen)
    return rows


def _stream(spice: _Spice, length: int) -> list[bytes]:
    messages: list[bytes] = []
    boot_ns = BOOT * NS
    for number in range(length):
        if number and spice.chance(spice.rarity * 3):
            messages.append(_undecodable(spice, messages))
            continue
        message = pb.EBPFAccessLogMessage()
        if _wanted(spice, first=number == 0):
            message.node.CopyFrom(_node(spice))
            boot_ns = message.node.bootTime.seconds * NS + message.node.bootTime.nanos
        if _wanted(spice, first=number == 0) or spice.chance(4):
            message.connection.CopyFrom(_connection(spice))
        _add_logs(spice, message, boot_ns)
        messages.append(_serialized(spice, message))
    return messages


def _wanted(spice: _Spice, *, first: bool) -> bool:
    """Say yes to almost every first message, and to few others."""
    return spice.chance(spice.rarity * 4) is not first


def _serialized(spice: _Spice, message: pb.EBPFAccessLogMessage) -> bytes:
    known = message.SerializeToString()
    return known + UNKNOWN_FIELDS if spice.chance(spice.rarity * 4) else known


def _undecodable(spice: _Spice, before: list[bytes]) -> bytes:
    bad = spice.draw(st.sampled_from(UNDECODABLE))
    return before[-1] + bad if spice.chance(3) else bad


def _add_logs(spice: _Spice, message: pb.EBPFAccessLogMessage, boot_ns: int) -> None:
    if spice.chance(3):
        message.protocolLog.CopyFrom(_protocol_log(spice, boot_ns))
    for _ in range(spice.below(4)):
        message.kernelLogs.append(_kernel_log(spice, boot_ns))


def _node(spice: _Spice) -> pb.EBPFAccessLogNodeInfo:
    node = pb.EBPFAccessLogNodeInfo(name="node-1")
    if not spice.chance(spice.rarity * 2):
        node.bootTime.seconds, node.bootTime.nanos = spice.pick(BOOTS, ODD_BOOTS)
    node.clusterName = spice.pick(("", "", "east"), ("c" * 80, "a::b"))
    node.policy.excludeNamespaces.extend(
        spice.pick(((), ("kube-system",)), (("pay", "kube-system"), ("shop",), ("",)))
    )
    for index, name in spice.pick(((), ((2, "eth0"),)), (((0, "lo"), (-1, "odd")),)):
        node.netInterfaces.add(index=index, mtu=1_500, name=name)
    return node


def _connection(spice: _Spice) -> pb.AccessLogConnection:
    connection = pb.AccessLogConnection()
    _address(spice, connection.local, LOCAL_NAMES, ips_one_in=4)
    _address(spice, connection.remote, REMOTE_NAMES, ips_one_in=2)
    connection.role = spice.pick((CLIENT, SERVER), (*[PROXY] * 12, *UNKNOWN_NUMBERS))
    connection.tlsMode = spice.pick((pb.Plain, pb.TLS), UNKNOWN_NUMBERS)
    connection.protocol = spice.pick((pb.TCP, pb.HTTP_1, pb.HTTP_2), UNKNOWN_NUMBERS)
    if spice.chance(spice.rarity):
        _attach(spice, connection.attachment)
    return connection


def _address(
    spice: _Spice, address: pb.ConnectionAddress, services: Sequence[str], ips_one_in: int
) -> None:
    if spice.chance(spice.rarity * 4):
        spice.draw(st.sampled_from((address.Clear, address.SetInParent)))()
    elif spice.chance(ips_one_in):
        address.ip.host = spice.pick(POD_IPS + SERVICE_IPS, ODD_IPS)
        address.ip.port = spice.pick(PORTS, (-1, 2**31 - 1))
    else:
        names = spice.pick(services, ODD_SERVICE_NAMES, harder=2)
        address.kubernetes.serviceName = "" if spice.chance(spice.rarity * 4) else names
        pod = spice.pick(POD_NAMES, ODD_POD_NAMES)
        address.kubernetes.podName = "" if spice.chance(spice.rarity * 2) else pod


def _attach(spice: _Spice, attachment: pb.ConnectionAttachment) -> None:
    attachment.SetInParent()
    if spice.chance(spice.rarity):
        return
    attachment.zTunnel.real_destination_ip = spice.pick(POD_IPS, ("", *ODD_IPS, *SERVICE_IPS))
    attachment.zTunnel.by = spice.pick(
        (pb.ZTUNNEL_OUTBOUND_FUNC,), (pb.ZTUNNEL_INBOUND_FUNC, *UNKNOWN_NUMBERS)
    )
    attachment.zTunnel.security_policy = spice.pick((pb.MTLS, pb.NONE), UNKNOWN_NUMBERS)
    attachment.zTunnel.addition.add(key="a", value="b")


def _event_offset(spice: _Spice, boot_ns: int) -> int:
    """Return an offset that puts an event near a moment of interest."""
    if spice.chance(spice.rarity * 6):
        offset = spice.draw(st.sampled_from((*UNSIGNED, *(f - boot_ns for f in FAR_MOMENTS_NS))))
    else:
        second = spice.draw(st.sampled_from(MOMENTS))
        offset = second * NS + spice.pick((0, 1, -1, 5_000_000_123), (NS - 1, -2)) - boot_ns
    return max(0, min(offset, 2**64 - 1))


def _set_times(spice: _Spice, operation: Operation, boot_ns: int, scale: int = 1) -> None:
    """Fill in start and end; `scale` is the nanoseconds that an ordinary step takes."""
    if spice.chance(spice.rarity * 4):
        spice.draw(st.sampled_from((operation.Clear, operation.startTime.SetInParent)))()
        return
    start = _event_offset(spice, boot_ns)
    operation.startTime.offset.offset = start
    if spice.chance(spice.rarity * 4):
        return
    passed = spice.pick((1, 7, 500, 999, 2_001), (0, 10, -1, -scale, 2**62, 2**63, 2**63 - 1))
    end = start + (passed * scale if 0 < passed < 2**32 else passed)
    operation.endTime.offset.offset = max(0, min(end, 2**64 - 1))


def _kernel_log(spice: _Spice, boot_ns: int) -> pb.AccessLogKernelLog:
    log = pb.AccessLogKernelLog()
    kinds = ("connect", "accept", "close", "read", "read", "write", "write")
    if spice.chance(spice.rarity * 4):
        return log
    kind = spice.draw(st.sampled_from(kinds))
    operation = getattr(log, kind)
    operation.SetInParent()
    if kind in ("connect", "close"):
        operation.success = not spice.chance(3)
    if kind in ("read", "write"):
        operation.syscall = spice.pick((0, 1, 2), (3, 5, 7, *UNKNOWN_NUMBERS))
        _fill(spice, operation)
    _set_times(spice, operation, boot_ns)
    return log


def _fill(spice: _Spice, operation: Operation) -> None:
    """Fill in the three layers: related small numbers, and sometimes a hostile one."""
    seed = spice.below(40)
    layers = (operation.l2Metrics, operation.l3Metrics, operation.l4Metrics)
    fields = [
        (layer, field)
        for layer in layers
        for field in layer.DESCRIPTOR.fields
        if field.cpp_type != field.CPPTYPE_MESSAGE
    ]
    for place, (layer, field) in enumerate(fields):
        setattr(layer, field.name, seed * (place % 5 + 1) % 97 if seed else place % 2)
    if spice.chance(spice.rarity // 2 or 1):
        for _ in range(1 + spice.below(3)):
            layer, field = spice.draw(st.sampled_from(fields))
            setattr(layer, field.name, spice.draw(st.sampled_from(_hostile(field))))
    if spice.chance(spice.rarity * 2):
        operation.ClearField(spice.draw(st.sampled_from(("l2Metrics", "l3Metrics", "l4Metrics"))))


def _hostile(field: Field) -> tuple[int, ...]:
    by_type = {field.CPPTYPE_UINT64: UNSIGNED, field.CPPTYPE_INT64: SIGNED}
    return by_type.get(field.cpp_type, SHORT)


def _protocol_log(spice: _Spice, boot_ns: int) -> pb.AccessLogProtocolLogs:
    log = pb.AccessLogProtocolLogs()
    if spice.chance(spice.rarity * 4):
        return log
    http = log.http
    http.SetInParent()
    http.version = spice.pick((pb.HTTP1, pb.HTTP2), UNKNOWN_NUMBERS)
    if not spice.chance(spice.rarity * 3):
        _request(spice, http.request)
    if not spice.chance(spice.rarity * 3):
        http.response.statusCode = spice.pick(STATUSES, ODD_STATUSES)
        http.response.sizeOfHeadersBytes = spice.pick((40, 120), UNSIGNED)
        http.response.sizeOfBodyBytes = spice.pick((0, 7, 1_000), UNSIGNED)
    _set_times(spice, http, boot_ns, scale=1_000_000)
    return log


def _request(spice: _Spice, request: pb.AccessLogHTTPProtocolRequest) -> None:
    request.method = spice.pick((pb.Get, pb.Get, pb.Post), (*range(9), 9, -1, 2**31 - 1))
    request.path = spice.pick(PATHS, ODD_PATHS)
    request.host = "example.com"
    request.sizeOfHeadersBytes = spice.pick((30, 99), UNSIGNED)
    request.sizeOfBodyBytes = spice.pick((0, 11), UNSIGNED)
    if spice.chance(spice.rarity):
        request.trace.traceId = "trace-1"
        request.trace.spanId = "1"
