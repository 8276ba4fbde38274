from .logs import HTTP_LOGS_SCHEMA as HTTP_LOGS_SCHEMA
from .logs import read_http_logs as read_http_logs
from .offsets import clock_offsets as clock_offsets
from .pairing import pair as pair
from .relations import WINDOW_NS as WINDOW_NS
from .relations import Relations as Relations
from .relations import calls_of as calls_of
from .relations import relations_of as relations_of
