-- What was read, and what was dropped or repaired and why, per capture.
SELECT path AS capture, kind, name, sum(count)::BIGINT AS count
FROM internal.counters JOIN internal.captures ON captures.id = counters.capture
GROUP BY ALL
ORDER BY capture, kind, count DESC, name;
