"""OAL: the language that metrics are defined in."""
