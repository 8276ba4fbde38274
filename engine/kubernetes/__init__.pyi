from .addresses import Entities as Entities
from .addresses import read_entities as read_entities
from .files import EntitiesFiles as EntitiesFiles
