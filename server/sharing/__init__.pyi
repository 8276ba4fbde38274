from .publishing import Publishing as Publishing
from .publishing import tell_unpublished as tell_unpublished
from .settings import PublishSettings as PublishSettings
