from .server import serve as serve
from .server import spool_options_of as spool_options_of
