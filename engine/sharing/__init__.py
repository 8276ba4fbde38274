"""States and logs that many engines share: Delta tables, what goes into them and is made of them.

Takes what commits of a store write, and a table's address; gives the same rows to other stores.
May import: archive, store, views. The tables' library (`framewalk[distributed]`) is loaded in
table.py.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
