"""Pages of panels as files: read, checked, and those that ship with framewalk (`pages/`).

Takes folders with `*.json` in the form of SkyWalking's `ui-initialized-templates`; gives pages, and
what is wrong with them. May import: mqe, and what it may.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
