from .connection import patient_http1 as patient_http1
from .serving import Http1Server as Http1Server
from .serving import QuietServer as QuietServer
from .serving import quiet_config as quiet_config
