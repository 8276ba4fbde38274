-- The latest requests that were answered with a status of 500 or more, or with none; by both sides.
-- Needs an archive of logs.
SELECT
  time,
  role AS seen_by,
  local_service,
  local_pod,
  remote_service,
  coalesce(remote_pod, remote_address) AS remote_pod,
  endpoint,
  status_code,
  round(duration_ns / 1e6, 3) AS latency_ms,
  node,
  trace_id
FROM http_logs
WHERE status_code NOT BETWEEN 1 AND 499
  AND time >= $since::TIMESTAMP
  AND time < $until::TIMESTAMP
  AND ($service IS NULL OR local_service = $service)
  AND ($namespace IS NULL OR ends_with(local_service, '.' || $namespace))
ORDER BY time DESC, local_service, local_pod;
