"""Metrics of the shipped K8s pages that no access log tells of (dashboards.md, section 2).

They are known, so that a page shows an empty panel where it would else show an error. Name, scope
and, of a labelled one, the name of its label.
"""

from __future__ import annotations

from typing import Final

_PROCESS_RELATION: Final = "process_relation"
_PLAIN_OF_SERVICES: Final = (
    "k8s_service_pod_total",
    "k8s_service_cpu_cores_requests",
    "k8s_service_cpu_cores_limits",
    "k8s_service_memory_requests",
    "k8s_service_memory_limits",
    "sampled_slow_trace_record",
    "sampled_status_4xx_trace_record",
    "sampled_status_5xx_trace_record",
)
_LABELLED_OF_SERVICES: Final = (
    ("k8s_service_pod_cpu_usage", "pod"),
    ("k8s_service_pod_memory_usage", "pod"),
    ("k8s_service_pod_status", "pod"),
    ("k8s_service_pod_status_waiting", "pod"),
    ("k8s_service_pod_status_restarts_total", "pod"),
)
_PLAIN_OF_PROCESS_RELATIONS: Final = (
    "client_close_avg_exe_time",
    "client_close_cpm",
    "client_connect_cpm",
    "client_connect_exe_time",
    "client_read_avg_exe_time",
    "client_read_cpm",
    "client_read_total_bytes",
    "client_write_avg_exe_time",
    "client_write_avg_rtt_time",
    "client_write_cpm",
    "client_write_total_bytes",
    "http1_client_duration",
    "http1_request_cpm",
    "http1_request_package_size",
    "http1_response_package_size",
    "http1_server_duration",
    "server_close_avg_exe_time",
    "server_close_cpm",
    "server_connect_avg_exe_time",
    "server_connect_cpm",
    "server_read_avg_exe_time",
    "server_read_cpm",
    "server_read_total_bytes",
    "server_write_avg_exe_time",
    "server_write_avg_rtt_time",
    "server_write_cpm",
    "server_write_total_bytes",
)
_LABELLED_OF_PROCESS_RELATIONS: Final = (
    ("client_read_exe_time_percentile", "p"),
    ("client_write_exe_time_percentile", "p"),
    ("client_write_rtt_time_percentile", "p"),
    ("http1_client_duration_percentile", "p"),
    ("http1_request_package_size_percentile", "p"),
    ("http1_response_package_size_percentile", "p"),
    ("http1_response_status_cpm", "status_code"),
    ("http1_server_duration_percentile", "p"),
    ("server_read_exe_time_percentile", "p"),
    ("server_write_exe_time_percentile", "p"),
    ("server_write_rtt_time_percentile", "p"),
)

ELSEWHERE: Final[tuple[tuple[str, str, str | None], ...]] = (
    *((name, "service", None) for name in _PLAIN_OF_SERVICES),
    *((name, "service", label) for name, label in _LABELLED_OF_SERVICES),
    *(
        (f"{_PROCESS_RELATION}_{name}", _PROCESS_RELATION, None)
        for name in _PLAIN_OF_PROCESS_RELATIONS
    ),
    *(
        (f"{_PROCESS_RELATION}_{name}", _PROCESS_RELATION, label)
        for name, label in _LABELLED_OF_PROCESS_RELATIONS
    ),
)
