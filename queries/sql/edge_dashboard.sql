-- Everything about who calls whom, of one pair: each metric over the range, with its unit.
-- Needs $source and $dest.
WITH one AS (
  SELECT minutes, to_json(own) AS content
  FROM service_relation_between($since, $until, divide_by := 1) AS own
  WHERE source_service = $source AND dest_service = $dest
), held AS (
  SELECT
    minutes,
    CASE path WHEN '$' THEN key ELSE path[3:] END AS metric,
    CASE path WHEN '$' THEN '' ELSE key END AS label,
    atom::DOUBLE AS value
  FROM one, json_tree(content)
  WHERE atom IS NOT NULL AND key NOT IN ('entity_id', 'source_service', 'dest_service')
)
SELECT
  metric,
  label,
  round(CASE function WHEN 'cpm' THEN value / minutes ELSE value END, 2) AS value,
  CASE function WHEN 'cpm' THEN 'per minute' ELSE unit END AS unit
FROM held JOIN metrics ON metrics.name = metric
ORDER BY family, metric, label;
