-- Who could not connect to whom: connections that were tried, and how many failed.
SELECT
  source_service AS source,
  dest_service AS dest,
  kubernetes_service_relation_connect_cpm AS connects,
  kubernetes_service_relation_connect_cpm
    - coalesce(kubernetes_service_relation_connect_success_cpm, 0) AS failed,
  round(100 * failed / connects, 2) AS failed_percent,
  round(kubernetes_service_relation_connect_duration / connects / 1e6, 3) AS connect_ms
FROM service_relation_between($since, $until, divide_by := 1)
WHERE failed > 0
  AND ($service IS NULL OR source_service = $service OR dest_service = $service)
  AND ($namespace IS NULL OR ends_with(source_service, '.' || $namespace)
    OR ends_with(dest_service, '.' || $namespace))
ORDER BY failed DESC, source, dest;
