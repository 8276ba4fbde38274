from .spool import Fsync as Fsync
from .spool import Recovered as Recovered
from .spool import Spool as Spool
from .spool import SpoolFullError as SpoolFullError
from .spool import SpoolOptions as SpoolOptions
