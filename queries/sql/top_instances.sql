-- The instances (pods) with the most of any metric; of a percentile name a part, as in NAME_percentile.p99.
-- Needs $metric.
WITH held AS (
  SELECT
    service,
    instance,
    minutes,
    to_json(COLUMNS(lambda name: name = split_part($metric, '.', 1))) AS content
  FROM service_instance_between($since, $until, divide_by := 1)
  WHERE ($service IS NULL OR service = $service)
    AND ($namespace IS NULL OR ends_with(service, '.' || $namespace))
)
SELECT
  service,
  instance,
  round((content ->> ('$' || regexp_extract($metric, '\..*')))::DOUBLE
    / CASE WHEN split_part($metric, '.', 1) IN (SELECT name FROM metrics WHERE function = 'cpm')
      THEN minutes ELSE 1 END, 2) AS value
FROM held
WHERE value IS NOT NULL
ORDER BY value DESC, service,
  instance;
