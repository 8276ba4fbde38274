-- What each pod did, in order: requests, and what else is kept of its connections.
-- Needs an archive of logs.
WITH logs AS (
  SELECT
    time, local_service, local_pod, role, 'http' AS operation, remote_service, remote_pod,
    remote_address, remote_port, duration_ns, endpoint || ' ' || status_code AS what, request
  FROM http_logs
  UNION ALL
  SELECT
    time, local_service, local_pod, role, operation, remote_service, remote_pod,
    remote_address, remote_port, duration_ns, NULL, request
  FROM connection_logs
  UNION ALL
  SELECT
    time, local_service, local_pod, role, operation, remote_service, remote_pod,
    remote_address, remote_port, duration_ns, syscall, request
  FROM transfer_logs
)
SELECT
  local_pod AS pod,
  time,
  role,
  operation,
  what,
  round(duration_ns / 1e6, 3) AS duration_ms,
  remote_service,
  coalesce(remote_pod, remote_address) AS remote_pod,
  remote_port,
  request
FROM logs
WHERE time >= $since::TIMESTAMP
  AND time < $until::TIMESTAMP
  AND ($service IS NULL OR local_service = $service)
  AND ($namespace IS NULL OR ends_with(local_service, '.' || $namespace))
  AND ($pod IS NULL OR local_pod = $pod)
ORDER BY pod, time, duration_ns DESC, operation;
