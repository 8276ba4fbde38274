from .serving import answering as answering
from .wanted import RestEndpoint as RestEndpoint
from .wanted import SqlEndpoint as SqlEndpoint
from .wanted import Wanted as Wanted
