from .addresses import Entities as Entities
from .addresses import read_entities as read_entities
from .claims import NO_SERVICE as NO_SERVICE
from .files import EntitiesFiles as EntitiesFiles
from .sources import Source as Source
from .sources import source_of as source_of
