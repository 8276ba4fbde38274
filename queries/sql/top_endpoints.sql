-- The endpoints with the most of any metric; of a percentile name a part, as in NAME_percentile.p99.
-- Needs $metric.
WITH held AS (
  SELECT
    service,
    endpoint,
    minutes,
    to_json(COLUMNS(lambda name: name = split_part($metric, '.', 1))) AS content
  FROM endpoint_between($since, $until, divide_by := 1)
  WHERE ($service IS NULL OR service = $service)
    AND ($namespace IS NULL OR ends_with(service, '.' || $namespace))
)
SELECT
  service,
  endpoint,
  round((content ->> ('$' || regexp_extract($metric, '\..*')))::DOUBLE
    / CASE WHEN split_part($metric, '.', 1) IN (SELECT name FROM metrics WHERE function = 'cpm')
      THEN minutes ELSE 1 END, 2) AS value
FROM held
WHERE value IS NOT NULL
ORDER BY value DESC, service,
  endpoint;
