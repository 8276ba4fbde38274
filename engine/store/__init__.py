"""The store: states and positions in DuckDB, with the views that finish states into values.

Takes states with the position that they reach; gives rows, views and SQL. May import: captures,
kubernetes, oal, questions, states, views.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
