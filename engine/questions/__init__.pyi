from .comments import comment_statements as comment_statements
from .macros import MARK as MARK
from .macros import asked_macros as asked_macros
from .places import filled as filled
from .places import places_of as places_of
from .shipped import Question as Question
from .shipped import shipped_questions as shipped_questions
