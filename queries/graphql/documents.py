"""Documents: text becomes a tree that is known to fit the schema, and is remembered.

To validate a document costs more than to answer it, and UIs send the same again and again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    SelectionSetNode,
    build_schema,
    parse,
    specified_rules,
    validate,
)
from graphql.validation import (
    ExecutableDefinitionsRule,
    FieldsOnCorrectTypeRule,
    FragmentsOnCompositeTypesRule,
    KnownArgumentNamesRule,
    KnownFragmentNamesRule,
    KnownTypeNamesRule,
    LoneAnonymousOperationRule,
    NoFragmentCyclesRule,
    PossibleFragmentSpreadsRule,
    ProvidedRequiredArgumentsRule,
    ScalarLeafsRule,
    UniqueFragmentNamesRule,
    UniqueOperationNamesRule,
    UniqueVariableNamesRule,
    ValuesOfCorrectTypeRule,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from graphql import ASTValidationRule, DocumentNode, SelectionNode

SYNTAX: Final = "InvalidSyntax"
VALIDATION: Final = "ValidationError"
FETCHING: Final = "DataFetchingException"

_SCHEMA_FILE: Final = Path(__file__).with_name("schema.graphql")
_KEPT_DOCUMENTS: Final = 256
# A tree takes some eighty times as much memory as its text: that is up to 86 MB. One large document
# does not take the place of all others.
_KEPT_CHARACTERS: Final = 1 << 20
_LONGEST_KEPT: Final = 1 << 18
# What a document may ask for once its fragments stand where they are named.
_MOST_FIELDS: Final = 60_000
# Introspection goes deeper than anything else, and has a rule of its own against going on forever.
_MOST_INTROSPECTION_DEPTH: Final = 20
_LARGE_BYTES: Final = 20_000
# Without the rules about variables, each of which walks the whole document: what is wrong about
# them is found when they are used.
_RULES_OF_LARGE: Final[tuple[type[ASTValidationRule], ...]] = (
    ExecutableDefinitionsRule,
    UniqueOperationNamesRule,
    LoneAnonymousOperationRule,
    UniqueFragmentNamesRule,
    UniqueVariableNamesRule,
    KnownTypeNamesRule,
    FragmentsOnCompositeTypesRule,
    KnownFragmentNamesRule,
    PossibleFragmentSpreadsRule,
    NoFragmentCyclesRule,
    FieldsOnCorrectTypeRule,
    ScalarLeafsRule,
    KnownArgumentNamesRule,
    ProvidedRequiredArgumentsRule,
    ValuesOfCorrectTypeRule,
)


class DocumentError(Exception):
    """A document that is not answered: what is wrong, of which kind, and the status of HTTP."""

    def __init__(
        self, errors: Sequence[GraphQLError], kind: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST
    ) -> None:
        super().__init__(errors[0].message)
        self.errors = tuple(errors)
        self.kind = kind
        self.status = status


@dataclass(frozen=True, slots=True)
class Document:
    """A document that fits the schema; `is_checked` if the types of its variables do, too.

    What is wanted below its fields is the same each time, unless there are directives: `shapes` are
    then made once, by the identity of the node that they are of.
    """

    node: DocumentNode
    is_checked: bool
    operations: int
    has_directives: bool = False
    shapes: dict[int, Callable[[Any], Any]] = field(default_factory=dict)


@cache
def schema() -> GraphQLSchema:
    """Return what clients can ask."""
    return build_schema(_SCHEMA_FILE.read_text(encoding="utf-8"))


class Documents:
    """The documents that were asked last; used from several threads."""

    def __init__(self, most_aliases: int, most_depth: int) -> None:
        self._most_aliases = most_aliases
        self._most_depth = most_depth
        self._kept: OrderedDict[str, Document] = OrderedDict()
        self._kept_characters = 0
        self._lock = Lock()

    def kept(self, text: str) -> Document | None:
        """Return the document of a text, if it is remembered."""
        with self._lock:
            found = self._kept.get(text)
            if found is not None:
                self._kept.move_to_end(text)
            return found

    def read(self, text: str) -> Document:
        """Return the document of a text; raise DocumentError where it is none for this schema."""
        found = self.kept(text)
        if found is not None:
            return found
        try:
            document = self._read(text)
        except RecursionError:
            problem = GraphQLError("The document is nested too deeply.")
            raise DocumentError([problem], SYNTAX, HTTPStatus.OK) from None
        if len(text) > _LONGEST_KEPT:
            return document
        with self._lock:
            if text not in self._kept:
                self._kept[text] = document
                self._kept_characters += len(text)
            while len(self._kept) > _KEPT_DOCUMENTS or self._kept_characters > _KEPT_CHARACTERS:
                oldest, _ = self._kept.popitem(last=False)
                self._kept_characters -= len(oldest)
        return document

    def _read(self, text: str) -> Document:
        try:
            node = parse(text)
        except GraphQLError as error:
            raise DocumentError([error], SYNTAX, HTTPStatus.OK) from error
        is_large = len(text) > _LARGE_BYTES
        errors = validate(schema(), node, _RULES_OF_LARGE if is_large else specified_rules)
        if errors:
            raise DocumentError(errors, VALIDATION)
        self._measure(node)
        operations = sum(isinstance(one, OperationDefinitionNode) for one in node.definitions)
        return Document(node, not is_large, operations, has_directives="@" in text)

    def _measure(self, node: DocumentNode) -> None:
        fragments = {
            one.name.value: one.selection_set
            for one in node.definitions
            if isinstance(one, FragmentDefinitionNode)
        }
        sizes = _Sizes(fragments)
        for one in node.definitions:
            if not isinstance(one, OperationDefinitionNode):
                continue
            beside = list(_fields(one.selection_set.selections, fragments, set()))
            if len(beside) > self._most_aliases:
                raise _too_large(len(beside), "fields at its top", self._most_aliases)
            for one_field in beside:
                fields, depth = sizes.of_field(one_field)
                is_introspection = one_field.name.value.startswith("__")
                most = _MOST_INTROSPECTION_DEPTH if is_introspection else self._most_depth
                if depth > most:
                    raise _too_large(depth, "levels", most)
                if fields > _MOST_FIELDS:
                    raise _too_large(fields, "fields", _MOST_FIELDS)
            total = sum(sizes.of_field(one)[0] for one in beside)
            if total > _MOST_FIELDS:
                raise _too_large(total, "fields", _MOST_FIELDS)


def _too_large(count: int, things: str, most: int) -> DocumentError:
    message = f"The document has {count:,} {things}, and at most {most:,} are answered."
    return DocumentError([GraphQLError(message)], VALIDATION)


class _Sizes:
    """How many fields selections are, and how deep, with fragments counted each time."""

    def __init__(self, fragments: Mapping[str, SelectionSetNode]) -> None:
        self._fragments = fragments
        self._known: dict[str, tuple[int, int]] = {}

    def of_field(self, field: FieldNode) -> tuple[int, int]:
        inner = self._of(field.selection_set)
        return inner[0] + 1, inner[1] + 1

    def _of(self, selections: SelectionSetNode | None) -> tuple[int, int]:
        fields, depth = 0, 0
        for one in selections.selections if selections is not None else ():
            match one:
                case FieldNode():
                    more = self.of_field(one)
                case FragmentSpreadNode():
                    more = self._of_fragment(one.name.value)
                case _:
                    more = self._of(one.selection_set)  # type: ignore[attr-defined]
            fields, depth = fields + more[0], max(depth, more[1])
        return fields, depth

    def _of_fragment(self, name: str) -> tuple[int, int]:
        if name not in self._known:
            self._known[name] = self._of(self._fragments[name])
        return self._known[name]


def _fields(
    selections: Sequence[SelectionNode],
    fragments: Mapping[str, SelectionSetNode],
    seen: set[str],
) -> Iterator[FieldNode]:
    """Yield the fields of a selection, with those of fragments in it, each fragment once."""
    for one in selections:
        match one:
            case FieldNode():
                yield one
            case FragmentSpreadNode():
                name = one.name.value
                if name not in seen:
                    seen.add(name)
                    yield from _fields(fragments[name].selections, fragments, seen)
            case _:
                inner = one.selection_set.selections  # type: ignore[attr-defined]
                yield from _fields(inner, fragments, seen)
