"""What an OAP's configuration has in the modules that framewalk has too: names, nothing else.

Whoever replaces an OAP has such a file. What framewalk has no use for in it is no mistake; any
other name in these modules is.
"""

from typing import Final

_REST: Final = (
    "restHost",
    "restPort",
    "restContextPath",
    "restMaxThreads",
    "restIdleTimeOut",
    "restAcceptQueueSize",
    "httpMaxRequestHeaderSize",
)
_GRPC: Final = ("gRPCThreadPoolQueueSize", "gRPCThreadPoolSize")

# Module, provider, keys; None is a provider of which framewalk takes nothing.
OAP_KEYS: Final[dict[str, dict[str, frozenset[str] | None]]] = {
    "core": {
        "default": frozenset(
            (
                *_REST,
                *_GRPC,
                "role",
                "downsampling",
                "enableDataKeeperExecutor",
                "dataKeeperExecutePeriod",
                "l1FlushPeriod",
                "storageSessionTimeout",
                "persistentPeriod",
                "enableDatabaseSession",
                "topNReportPeriod",
                "activeExtraModelColumns",
                "serviceNameMaxLength",
                "serviceCacheRefreshInterval",
                "instanceNameMaxLength",
                "endpointNameMaxLength",
                "searchableTracesTags",
                "searchableLogsTags",
                "searchableAlarmTags",
                "autocompleteTagKeysQueryMaxSize",
                "autocompleteTagValuesQueryMaxSize",
                "prepareThreads",
                "enableEndpointNameGroupingByOpenapi",
                "syncPeriodHttpUriRecognitionPattern",
                "trainingPeriodHttpUriRecognitionPattern",
                "maxHttpUrisNumberPerService",
                "enableHierarchy",
                "maxHeapMemoryUsagePercent",
                "maxDirectMemoryUsage",
            )
        )
    },
    "storage": dict.fromkeys(
        ("banyandb", "elasticsearch", "h2", "mysql", "mysql-sharding", "postgresql", "tidb")
    ),
    "receiver-sharing-server": {"default": frozenset((*_REST, *_GRPC))},
    "receiver-ebpf": {"default": frozenset((*_GRPC, "continuousPolicyCacheTimeout"))},
    "query": {
        "graphql": frozenset(
            (
                "enableLogTestTool",
                "enableOnDemandPodLog",
                "maxQueryComplexity",
            )
        )
    },
    "promql": {
        "default": frozenset(
            (
                *_REST,
                "buildInfoVersion",
                "buildInfoRevision",
                "buildInfoBranch",
                "buildInfoBuildUser",
                "buildInfoBuildDate",
                "buildInfoGoVersion",
            )
        )
    },
    "telemetry": {
        "prometheus": frozenset(("sslEnabled", "sslKeyPath", "sslCertChainPath")),
    },
}


def has_provider(module: str, provider: str) -> bool:
    """Tell whether an OAP's module has a provider of this name."""
    return provider in OAP_KEYS.get(module, {})


def has_key(module: str, provider: str, key: str) -> bool:
    """Tell whether an OAP has a key that framewalk has no use for."""
    return key in (OAP_KEYS.get(module, {}).get(provider) or ())
