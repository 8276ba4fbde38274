-- Each namespace with its services, and the requests that they answered.
SELECT
  nullif(regexp_extract(service, '\.([^.]+)$', 1), '') AS namespace,
  count(*) AS services,
  round(coalesce(sum(kubernetes_service_http_call_cpm), 0) / any_value(minutes), 1)
    AS calls_per_minute,
  round(100 * coalesce(sum(kubernetes_service_http_success_cpm), 0)
    / nullif(sum(kubernetes_service_http_call_cpm), 0), 2) AS success_percent
FROM service_between($since, $until, divide_by := 1)
WHERE ($namespace IS NULL OR ends_with(service, '.' || $namespace))
GROUP BY ALL
ORDER BY services DESC, namespace;
