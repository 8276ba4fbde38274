"""Live ingress: what Rover sends, kept in a spool of captures."""
