"""framewalk's engine: from raw access-log messages to mergeable metric states."""
