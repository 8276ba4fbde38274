-- Who calls whom: requests per minute, the share that succeeded and the slowest 1%.
-- Measured where the call arrives; where only the caller is watched, there.
WITH calls AS (
  SELECT
    entity_id,
    source_service,
    dest_service,
    count(DISTINCT time_bucket) AS minutes,
    sum(kubernetes_service_relation_server_http_call_cpm) AS served,
    sum(kubernetes_service_relation_server_http_success_cpm) AS served_well,
    sum(kubernetes_service_relation_client_http_call_cpm) AS sent,
    sum(kubernetes_service_relation_client_http_success_cpm) AS sent_well
  FROM service_relation_minute
  GROUP BY ALL
), slowest AS (
  SELECT
    entity_id,
    max(coalesce(
      kubernetes_service_relation_server_percentile,
      kubernetes_service_relation_client_percentile).p99) AS p99_ms
  FROM service_relation_day
  GROUP BY ALL
)
SELECT
  source_service AS source,
  dest_service AS dest,
  round(coalesce(served, sent) / minutes, 1) AS calls_per_minute,
  round(100 * coalesce(served_well, sent_well, 0) / coalesce(served, sent), 2) AS success_percent,
  p99_ms
FROM calls JOIN slowest USING (entity_id)
WHERE coalesce(served, sent) > 0
ORDER BY calls_per_minute DESC, source, dest;
