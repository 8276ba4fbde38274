"""The shipped questions: SQL with places to fill, as text for a query and as macros of a store.

Takes files of `queries/sql/` and the metrics of a store; gives texts and statements. May import:
oal.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
