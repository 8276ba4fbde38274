-- The pairs of who calls whom with the most of any metric; of a percentile name a part, as in NAME_percentile.p99.
-- Needs $metric.
WITH held AS (
  SELECT
    source_service AS source,
    dest_service AS dest,
    minutes,
    to_json(COLUMNS(lambda name: name = split_part($metric, '.', 1))) AS content
  FROM service_relation_between($since, $until, divide_by := 1)
  WHERE ($service IS NULL OR source_service = $service OR dest_service = $service)
    AND ($namespace IS NULL OR ends_with(source_service, '.' || $namespace)
      OR ends_with(dest_service, '.' || $namespace))
)
SELECT
  source,
  dest,
  round((content ->> ('$' || regexp_extract($metric, '\..*')))::DOUBLE
    / CASE WHEN split_part($metric, '.', 1) IN (SELECT name FROM metrics WHERE function = 'cpm')
      THEN minutes ELSE 1 END, 2) AS value
FROM held
WHERE value IS NOT NULL
ORDER BY value DESC, source,
  dest;
