from .macros import Macros as Macros
from .macros import stored_macros as stored_macros
from .rows import rows_of_view as rows_of_view
from .statements import narrowed_text as narrowed_text
from .statements import readable as readable
from .statements import readable_text as readable_text
