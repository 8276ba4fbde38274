-- From when to when the store has something: the oldest minute (or hour, or day, where only those
-- are kept), and the end of the newest minute.
WITH oldest AS (
  SELECT
    least((SELECT min(time_bucket) FROM internal.service_minutes),
      (SELECT min(time_bucket) FROM internal.service_states)) AS minute,
    (SELECT min(time_bucket) FROM internal.service_hours) AS hour,
    (SELECT min(time_bucket) FROM internal.service_days) AS day
)
SELECT
  CASE
    WHEN day < coalesce(date_trunc('day', least(minute, hour)), 'infinity'::TIMESTAMP) THEN day
    WHEN hour < coalesce(date_trunc('hour', minute), 'infinity'::TIMESTAMP) THEN hour
    ELSE minute
  END AS since,
  (SELECT max(minute) FROM internal.newest) + INTERVAL 1 MINUTE AS until
FROM oldest;
