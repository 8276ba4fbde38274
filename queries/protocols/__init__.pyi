from .together import Protocols as Protocols
from .together import Served as Served
from .together import served as served
