from .server import Http2Transport as Http2Transport
