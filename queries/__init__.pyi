from .shipped import shipped_queries as shipped_queries
