-- Who sends packages again to whom: of both ends, how many and which share of what was sent.
SELECT
  source_service AS source,
  dest_service AS dest,
  coalesce(kubernetes_service_relation_client_write_package_cpm, 0)
    + coalesce(kubernetes_service_relation_server_write_package_cpm, 0) AS packages,
  coalesce(kubernetes_service_relation_client_write_retrains_package_cpm, 0) AS by_source,
  coalesce(kubernetes_service_relation_server_write_retrains_package_cpm, 0) AS by_dest,
  round(100 * (by_source + by_dest) / nullif(packages, 0), 2) AS retransmitted_percent
FROM service_relation_between($since, $until, divide_by := 1)
WHERE by_source + by_dest > 0
  AND ($service IS NULL OR source_service = $service OR dest_service = $service)
  AND ($namespace IS NULL OR ends_with(source_service, '.' || $namespace)
    OR ends_with(dest_service, '.' || $namespace))
ORDER BY by_source + by_dest DESC, source, dest;
