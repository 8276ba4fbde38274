"""framewalk's engine: from captured access-log messages to metrics in DuckDB.

    from framewalk.engine import Store, load_plan, read_entities, replay

    entities = read_entities("kubectl.yaml")
    with Store("metrics.duckdb", load_plan()) as store:
        replay(["bookinfo.capture.arrows"], entities, store)
        print(store.query("FROM service_minute").pl())

`partial` and `merge` are the same work as pure functions, without a store.
"""

import lazy_loader

# A name is imported when it is used: who only receives needs neither Polars nor DuckDB.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
