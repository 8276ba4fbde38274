"""Stage 7: the views that finish states into metric values (store.md), as DuckDB SQL.

Takes definitions, and in which columns their states are; gives statements. Pure: no I/O and no
clock. May import: oal, questions.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
