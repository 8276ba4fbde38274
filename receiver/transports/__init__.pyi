from .opening import open_transport as open_transport
from .options import GrpcServer as GrpcServer
from .options import Tls as Tls
from .services import COLLECT as COLLECT
from .tls import server_ssl_context as server_ssl_context
from .transport import Transport as Transport
from .transport import TransportKind as TransportKind
