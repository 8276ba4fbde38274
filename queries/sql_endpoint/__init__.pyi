from .client import ClientTls as ClientTls
from .client import SqlClient as SqlClient
from .client import find_server as find_server
from .options import SqlOptions as SqlOptions
from .server import SqlServer as SqlServer
from .server_files import read_server_file as read_server_file
from .server_files import server_file as server_file
