-- Where packages wait: averages at both ends of who calls whom, on the way into and out of queues.
SELECT
  source_service AS source,
  dest_service AS dest,
  round(kubernetes_service_relation_client_write_l2_ready_send_time / 1e3, 1) AS source_send_us,
  round(kubernetes_service_relation_server_read_l2_package_to_queue_time / 1e3, 1)
    AS dest_to_queue_us,
  round(kubernetes_service_relation_server_read_l2_rcv_package_from_queue_time / 1e3, 1)
    AS dest_from_queue_us,
  round(kubernetes_service_relation_server_write_l2_ready_send_time / 1e3, 1) AS dest_send_us,
  round(kubernetes_service_relation_client_read_l2_package_to_queue_time / 1e3, 1)
    AS source_to_queue_us,
  round(kubernetes_service_relation_client_read_l2_rcv_package_from_queue_time / 1e3, 1)
    AS source_from_queue_us
FROM service_relation_between($since, $until, divide_by := 1)
WHERE ($service IS NULL OR source_service = $service OR dest_service = $service)
  AND ($namespace IS NULL OR ends_with(source_service, '.' || $namespace)
    OR ends_with(dest_service, '.' || $namespace))
ORDER BY
  greatest(source_send_us, dest_to_queue_us, dest_from_queue_us, dest_send_us, source_to_queue_us,
    source_from_queue_us) DESC NULLS LAST,
  source,
  dest;
