-- Who is not named: addresses that stand for no service, with the traffic of the range's hours.
SELECT
  address,
  port,
  side,
  reason,
  arg_max(partner, bytes) AS partner_with_most,
  count(DISTINCT partner) AS partners,
  sum(bytes)::BIGINT AS bytes,
  sum(http_calls)::BIGINT AS http_calls,
  sum(logs)::BIGINT AS logs,
  min(first_seen) AS first_seen,
  max(last_seen) AS last_seen
FROM unknown_peers
WHERE time_bucket >= date_trunc('hour', $since::TIMESTAMP)
  AND time_bucket < $until::TIMESTAMP
  AND ($service IS NULL OR partner = $service)
  AND ($namespace IS NULL OR ends_with(partner, '.' || $namespace))
GROUP BY ALL
ORDER BY bytes DESC, logs DESC, address, port, side, reason;
