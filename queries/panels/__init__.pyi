from .checking import check_pages as check_pages
from .files import Finding as Finding
from .files import Found as Found
from .files import Severity as Severity
from .files import read_pages as read_pages
from .files import shipped_pages as shipped_pages
from .model import Page as Page
from .model import Widget as Widget
