-- The latest traces: each request that says it is part of one, from where to where, in order.
-- Needs an archive of logs.
WITH latest AS (
  SELECT trace_id, max(time) AS last
  FROM http_logs
  WHERE trace_id IS NOT NULL
    AND time >= $since::TIMESTAMP
    AND time < $until::TIMESTAMP
    AND ($service IS NULL OR local_service = $service)
    AND ($namespace IS NULL OR ends_with(local_service, '.' || $namespace))
    AND ($trace_id IS NULL OR trace_id = $trace_id)
  GROUP BY trace_id
  ORDER BY last DESC, trace_id
  LIMIT 20
)
SELECT
  trace_id,
  time,
  role AS seen_by,
  local_service,
  local_pod,
  remote_service,
  endpoint,
  status_code,
  round(duration_ns / 1e6, 3) AS latency_ms,
  trace_segment_id,
  trace_span_id
FROM http_logs JOIN latest USING (trace_id)
ORDER BY last DESC, trace_id, time, duration_ns DESC;
