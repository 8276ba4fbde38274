"""Definitions and views: what people read from a store."""
