from .asked import Asked as Asked
from .asked import Told as Told
from .columns import Columns as Columns
from .durations import MOST_POINTS as MOST_POINTS
from .resolvers import RESOLVERS as RESOLVERS
from .templates import Templates as Templates
