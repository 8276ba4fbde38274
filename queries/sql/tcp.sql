-- Bytes and TCP of who calls whom, as the caller's end saw them, most bytes first.
-- Times are averages of one operation: in the kernel, on the network's way, until a connection stood.
SELECT
  source_service AS source,
  dest_service AS dest,
  coalesce(kubernetes_service_relation_client_write_package_size, 0) AS sent_bytes,
  coalesce(kubernetes_service_relation_client_read_package_size, 0) AS received_bytes,
  kubernetes_service_relation_client_write_package_cpm AS sent_packages,
  kubernetes_service_relation_client_write_retrains_package_cpm AS retransmitted_packages,
  round(kubernetes_service_relation_client_write_l4_time / 1e6, 3) AS write_l4_ms,
  round(kubernetes_service_relation_client_read_l4_time / 1e6, 3) AS read_l4_ms,
  kubernetes_service_relation_connect_cpm AS connects,
  kubernetes_service_relation_connect_cpm
    - coalesce(kubernetes_service_relation_connect_success_cpm, 0) AS failed_connects,
  round(kubernetes_service_relation_connect_duration / kubernetes_service_relation_connect_cpm
    / 1e6, 3) AS connect_ms
FROM service_relation_between($since, $until, divide_by := 1)
WHERE ($service IS NULL OR source_service = $service OR dest_service = $service)
  AND ($source IS NULL OR source_service = $source)
  AND ($dest IS NULL OR dest_service = $dest)
  AND ($namespace IS NULL OR ends_with(source_service, '.' || $namespace)
    OR ends_with(dest_service, '.' || $namespace))
ORDER BY sent_bytes + received_bytes DESC, source, dest;
