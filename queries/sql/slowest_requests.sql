-- The slowest requests, as the serving side saw them, with what each layer took of their time.
-- Needs an archive of logs.
SELECT
  time,
  local_service AS service,
  local_pod AS pod,
  endpoint,
  status_code,
  round(duration_ns / 1e6, 3) AS latency_ms,
  round(serving_duration_ns / 1e6, 3) AS serving_ms,
  round(read_l4_duration_ns / 1e6, 3) AS read_l4_ms,
  round(read_l3_duration_ns / 1e6, 3) AS read_l3_ms,
  round(read_l2_package_to_queue_duration_ns / 1e6, 3) AS read_l2_ms,
  round(write_l4_duration_ns / 1e6, 3) AS write_l4_ms,
  round(write_l3_duration_ns / 1e6, 3) AS write_l3_ms,
  round(write_l2_duration_ns / 1e6, 3) AS write_l2_ms,
  write_l4_retransmit_package_count AS retransmits,
  remote_service AS caller,
  coalesce(remote_pod, remote_address) AS caller_pod,
  trace_id
FROM http_logs
WHERE role = 'server'
  AND time >= $since::TIMESTAMP
  AND time < $until::TIMESTAMP
  AND ($service IS NULL OR local_service = $service)
  AND ($namespace IS NULL OR ends_with(local_service, '.' || $namespace))
  AND ($endpoint IS NULL OR endpoint = $endpoint)
ORDER BY duration_ns DESC, time;
