-- The pods with the most bytes, as their own ends saw them: sent, received, and the share of all pods' bytes.
WITH every AS (
  SELECT
    service,
    instance,
    minutes,
    coalesce(kubernetes_service_instance_write_package_size, 0) AS sent_bytes,
    coalesce(kubernetes_service_instance_read_package_size, 0) AS received_bytes,
    sum(sent_bytes + received_bytes) OVER () AS all_bytes
  FROM service_instance_between($since, $until, divide_by := 1)
)
SELECT
  service,
  instance,
  sent_bytes,
  received_bytes,
  round((sent_bytes + received_bytes) / minutes)::BIGINT AS bytes_per_minute,
  round(100 * (sent_bytes + received_bytes) / all_bytes, 2) AS percent_of_bytes
FROM every
WHERE sent_bytes + received_bytes > 0
  AND ($service IS NULL OR service = $service)
  AND ($namespace IS NULL OR ends_with(service, '.' || $namespace))
ORDER BY sent_bytes + received_bytes DESC, service, instance;
