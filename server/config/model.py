"""What a configuration holds: a block of keys for each module's provider, and all together.

Names follow the OAP's where the meaning is the same (`gRPCPort`); fields are Python's and carry
their unit (`flush_interval_s`). There are no defaults here: they are in default.yml.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic.fields import FieldInfo

from framewalk.receiver.transports import GrpcServer, Tls, TransportKind
from framewalk.server.config.value_types import (
    Bytes,
    BytesOrZero,
    Count,
    CountOrZero,
    Days,
    DaysOrZero,
    ExistingFile,
    ExistingPaths,
    ExistingSources,
    FileToBe,
    Flag,
    FolderToBe,
    Host,
    HostNames,
    KeptTexts,
    MessageBytes,
    MessageBytesOrZero,
    Networks,
    OptionalFolder,
    OptionalPath,
    Port,
    PortOrZero,
    Seconds,
    SecondsOrZero,
    SlowMs,
    Text,
    Texts,
    Token,
)

CORE: Final = "core"
SHARING_SERVER: Final = "receiver-sharing-server"
EBPF: Final = "receiver-ebpf"
SPOOL: Final = "spool"
QUERY: Final = "query"
PROMQL: Final = "promql"


class Block(BaseModel):
    """The keys of a provider block; the alias of a field is its key."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @classmethod
    def fields_by_key(cls) -> dict[str, FieldInfo]:
        """Return the fields by their keys, in order."""
        return {cls.key_of(name): field for name, field in cls.model_fields.items()}

    @classmethod
    def key_of(cls, name: str) -> str:
        """Return the key of a field."""
        return str(cls.model_fields[name].alias)


class Listening(Block):
    """The keys of what listens on an address."""

    host: Host = Field(alias="host")
    port: PortOrZero = Field(alias="port")


class GrpcBlock(Listening):
    """The keys that all gRPC servers have: 0 calls are no limit, 0 bytes the core's limit."""

    host: Host = Field(alias="gRPCHost")
    port: PortOrZero = Field(alias="gRPCPort")
    max_calls_per_connection: CountOrZero = Field(alias="maxConcurrentCallsPerConnection")
    max_message_bytes: MessageBytesOrZero = Field(alias="maxMessageSize")
    tls_enabled: Flag = Field(alias="gRPCSslEnabled")
    tls_key_path: OptionalPath = Field(alias="gRPCSslKeyPath")
    tls_certificate_chain_path: OptionalPath = Field(alias="gRPCSslCertChainPath")
    tls_trusted_ca_path: OptionalPath = Field(alias="gRPCSslTrustedCAsPath")

    def server(self, default_message_bytes: int) -> GrpcServer:
        """Return the server that this block describes."""
        return GrpcServer(
            host=self.host,
            port=self.port,
            tls=self._tls(),
            max_message_bytes=self.max_message_bytes or default_message_bytes,
            max_calls_per_connection=self.max_calls_per_connection or None,
        )

    def _tls(self) -> Tls | None:
        key, chain = self.tls_key_path, self.tls_certificate_chain_path
        if not self.tls_enabled or key is None or chain is None:
            return None
        return Tls(key, chain, self.tls_trusted_ca_path)


class Core(GrpcBlock):
    """The server itself. Metrics are kept for `metrics_ttl_days`, where nothing else is said.

    Logs that are kept are so for `record_ttl_days`.
    """

    port: Port = Field(alias="gRPCPort")
    max_message_bytes: MessageBytes = Field(alias="maxMessageSize")
    tls_trusted_ca_path: OptionalPath = Field(alias="gRPCSslTrustedCAPath")
    grpc_transport: TransportKind = Field(alias="grpcTransport")
    record_ttl_days: Days = Field(alias="recordDataTTL")
    metrics_ttl_days: Days = Field(alias="metricsDataTTL")
    minute_ttl_days: DaysOrZero = Field(alias="minuteDataTTL")
    hour_ttl_days: DaysOrZero = Field(alias="hourDataTTL")
    day_ttl_days: DaysOrZero = Field(alias="dayDataTTL")
    drain_timeout_s: Seconds = Field(alias="drainTimeoutSeconds")

    @property
    def ttl_days(self) -> dict[str, int]:
        """How long each is kept, by the name of its field, from minutes to days."""
        names = ("minute_ttl_days", "hour_ttl_days", "day_ttl_days")
        return {name: getattr(self, name) or self.metrics_ttl_days for name in names}


class SharingServer(GrpcBlock):
    """A server for all receivers if `port` is not 0; and the token of all servers."""

    authentication: Token = Field(alias="authentication")


class Ebpf(GrpcBlock):
    """The receiver of what Rover sends; it has a server of its own if `port` is not 0."""

    max_concurrent_streams: Count = Field(alias="maxConcurrentStreams")
    max_bytes_in_flight: Bytes = Field(alias="maxBytesInFlight")
    max_connections: Count = Field(alias="maxConnections")
    max_connections_per_peer: Count = Field(alias="maxConnectionsPerPeer")
    trusted_proxies: Networks = Field(alias="trustedProxies")

    def bounded(self, server: GrpcServer) -> GrpcServer:
        """Return a server that takes connections as this receiver does."""
        return replace(
            server,
            max_connections=self.max_connections,
            max_connections_per_peer=self.max_connections_per_peer,
            trusted_proxies=self.trusted_proxies,
        )


class Spool(Block):
    """Where received messages are kept; `retention_s` counts from their metrics' commit."""

    directory: FolderToBe = Field(alias="directory")
    segment_bytes: Bytes = Field(alias="segmentBytes")
    segment_age_s: Seconds = Field(alias="segmentAgeSeconds")
    fsync: Literal["batch", "interval", "never"] = Field(alias="fsync")
    fsync_interval_s: Seconds = Field(alias="fsyncIntervalSeconds")
    budget_bytes: Bytes = Field(alias="budgetBytes")
    retention_s: SecondsOrZero = Field(alias="retentionSeconds")


class Storage(Block):
    """Where metrics are stored. With 0 `reserve_bytes` nothing is kept for a full disk."""

    path: FileToBe = Field(alias="path")
    budget_bytes: Bytes = Field(alias="budgetBytes")
    reserve_bytes: BytesOrZero = Field(alias="reserveBytes")


class Archive(Block):
    """What is kept of the logs themselves, and for requests, which texts.

    No `directory` is one beside the store.
    """

    mode: Literal["none", "off", "http", "all", "sampled"] = Field(alias="mode")
    sample_one_in: Count = Field(alias="sampleOneIn")
    slow_ms: SlowMs = Field(alias="slowMs")
    directory: OptionalFolder = Field(alias="directory")
    budget_bytes: Bytes = Field(alias="budgetBytes")
    kept_texts: KeptTexts = Field(alias="keep")

    def folder_of(self, store: Path) -> Path:
        """Return where the archive of a store is."""
        return self.directory or store.with_name(f"{store.name}.archive")


class Engine(Block):
    """What computes metrics. No `oal_paths` are the shipped ones; 0 s never reads dumps again.

    No `memory_bytes` are half of what the machine or the container has.
    """

    entities_paths: ExistingSources = Field(alias="entitiesPaths")
    name_by_owner: Flag = Field(alias="nameByOwner")
    kubernetes: Flag = Field(alias="kubernetes")
    kubeconfig: OptionalPath = Field(alias="kubeconfig")
    kubernetes_contexts: Texts = Field(alias="kubernetesContext")
    entities_reload_s: SecondsOrZero = Field(alias="entitiesReloadSeconds")
    name_wait_s: SecondsOrZero = Field(alias="nameWaitSeconds")
    oal_paths: ExistingPaths = Field(alias="oalPaths")
    apdex_path: ExistingFile = Field(alias="apdexPath")
    endpoint_patterns_path: ExistingFile = Field(alias="endpointPatternsPath")
    flush_interval_s: Seconds = Field(alias="flushIntervalSeconds")
    max_ahead_s: SecondsOrZero = Field(alias="maxAheadSeconds")
    max_endpoints_per_service: Count = Field(alias="maxEndpointsPerService")
    max_entities_per_stream: Count = Field(alias="maxEntitiesPerStream")
    max_minutes_per_stream: Count = Field(alias="maxMinutesPerStream")
    max_entities_per_minute: Count = Field(alias="maxEntitiesPerMinute")
    memory_bytes: BytesOrZero = Field(alias="memoryBytes")


class Publish(Block):
    """The table that engines share; nothing is published without a `uri`."""

    uri: Text = Field(alias="uri")
    every_s: Seconds = Field(alias="intervalSeconds")
    outbox_bytes: Bytes = Field(alias="outboxBytes")
    engine_name: Text = Field(alias="engineName")
    logs: Flag = Field(alias="logs")


class Sql(Listening):
    """The read-only SQL endpoint; the limits are per query."""

    port: Port = Field(alias="port")
    host_names: HostNames = Field(alias="hostNames")
    max_rows: Count = Field(alias="maxRows")
    timeout_s: Seconds = Field(alias="timeoutSeconds")


class RestBlock(Listening):
    """The keys of a query protocol that the OAP speaks too; the limit is per request."""

    host: Host = Field(alias="restHost")
    port: Port = Field(alias="restPort")
    host_names: HostNames = Field(alias="hostNames")
    timeout_s: Seconds = Field(alias="timeoutSeconds")


class GraphQL(RestBlock):
    """GraphQL, and whether dashboards that are edited in a page are kept."""

    keeps_templates: Flag = Field(alias="enableUpdateUITemplate")
    template_paths: ExistingPaths = Field(alias="uiTemplatesPaths")


class PromQL(RestBlock):
    """Prometheus' HTTP API."""


class Telemetry(Listening):
    """Where /metrics is served."""

    port: Port = Field(alias="port")


class Logging(Block):
    """What is written on standard error."""

    format: Literal["text", "json"] = Field(alias="format")
    level: Literal["debug", "info", "warning", "error"] = Field(alias="level")


class Config(BaseModel):
    """A whole configuration, one field a module; a module that is off is None."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    core: Core
    sharing_server: SharingServer
    ebpf: Ebpf | None
    spool: Spool
    storage: Storage
    archive: Archive | None
    engine: Engine | None
    publish: Publish | None
    sql: Sql | None
    graphql: GraphQL | None
    promql: PromQL | None
    telemetry: Telemetry | None
    logging: Logging

    @property
    def grpc(self) -> GrpcServer:
        """The one gRPC server to open, chosen as the OAP chooses for this receiver.

        It is the receiver's own if that has a port, else the sharing server if that has one,
        else the core's.
        """
        own = [one for one in (self.ebpf, self.sharing_server) if one is not None and one.port]
        server = [*own, self.core][0].server(self.core.max_message_bytes)
        return server if self.ebpf is None else self.ebpf.bounded(server)

    @property
    def authentication(self) -> SecretStr | None:
        """The token that every caller must show, if any."""
        return self.sharing_server.authentication


@dataclass(frozen=True, slots=True)
class Module:
    """A module of the file: the field of Config it becomes, and the blocks of its providers.

    With a block that has no keys a module is as good as off.
    """

    field: str
    providers: Mapping[str, type[Block]]
    required: bool = False


MODULES: Final[Mapping[str, Module]] = {
    CORE: Module("core", {"default": Core}, required=True),
    SHARING_SERVER: Module("sharing_server", {"default": SharingServer}, required=True),
    EBPF: Module("ebpf", {"default": Ebpf}),
    SPOOL: Module("spool", {"default": Spool}, required=True),
    "storage": Module("storage", {"duckdb": Storage}, required=True),
    "archive": Module("archive", {"parquet": Archive}),
    "engine": Module("engine", {"default": Engine}),
    "publish": Module("publish", {"delta": Publish}),
    "sql": Module("sql", {"default": Sql}),
    QUERY: Module("graphql", {"graphql": GraphQL}),
    PROMQL: Module("promql", {"default": PromQL}),
    "telemetry": Module("telemetry", {"prometheus": Telemetry, "none": Block}),
    "logging": Module("logging", {"default": Logging}, required=True),
}
