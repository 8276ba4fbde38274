from .connection import patient_http1 as patient_http1
from .serving import Http1Server as Http1Server
