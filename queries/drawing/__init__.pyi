from .graphs import as_dot as as_dot
from .graphs import as_mermaid as as_mermaid
from .layering import Layers as Layers
from .layering import layers_of as layers_of
from .picture import as_svg as as_svg
from .services import Edge as Edge
from .services import ServiceMap as ServiceMap
from .tree import as_text as as_text
