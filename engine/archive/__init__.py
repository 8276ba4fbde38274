"""The archive: flattened, resolved logs as Parquet files, listed in the store.

Takes the logs that count from the stages; gives files, and views of the store over those that are
listed. May import: stages, store, views.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
