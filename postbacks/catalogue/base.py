"""The base class of event types, and the registry that they enter when they are defined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import to_json

from postbacks.catalogue.problems import problems_of
from postbacks.catalogue.values import Form, closed_set
from postbacks.errors import InvalidEvent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Group of each origin (catalogue: Groups).
ORIGINS: Mapping[str, str] = {
    "SUB": "general",
    "EMAIL_SUB": "general",
    "SMS_MO": "mo",
    "MMS_MO": "mo",
    "SMS_MT": "mt",
    "MMS_MT": "mt",
    "GENERATE_PASS": "pass",
}

#: Most bytes of UTF-8 of an event's JSON. A larger event is refused, so that no caller can fill the broker with one.
MAX_EVENT_BYTES = 256 * 1024

# Most bytes that ORIGIN, CODE and FILE add to the JSON of an event's fields.
_ENVELOPE_BYTES = 64

_registry: dict[tuple[str, str], type[Event]] = {}


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag of an event type.

    Attributes:
        name: its name in the document, in upper case.
        field: its name in Python.
        required: True if every document has it.
        form: the form of its values.
    """

    name: str
    field: str
    required: bool
    form: Form

    def __str__(self) -> str:
        """Return the tag in the catalogue's notation: ``?`` optional, ``+`` one or more."""
        holding = f" (holding {self.form.item[0]}+)" if self.form.item else ""
        return f"{self.name}{'' if self.required else '?'}{holding}"


def _tag_name(field: str) -> str:
    # FROM_MASK is the one tag with an underscore.
    return "FROM_MASK" if field == "from_mask" else field.replace("_", "").upper()


class Event(BaseModel):
    """An event of an account; each subclass is a row of the catalogue.

    Fields stand in document order. A tag may be given by its name (``FROM``) or by its Python name (``from_``).
    An optional tag that is None is left out of the document.

    Raises:
        InvalidEvent: the event is not in the catalogue's form; lists every tag at fault. Raised by the constructor and
            by all of pydantic's other ways of validating.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=_tag_name,
        validate_by_name=True,
        validate_by_alias=True,
    )

    #: ORIGIN and CODE of the row; empty for a class that only lends its fields to others.
    origin: ClassVar[str] = ""
    code: ClassVar[str] = ""
    #: ``general``, ``mo``, ``mt`` or ``pass``.
    group: ClassVar[str] = ""
    #: The catalogue's words for what happened.
    meaning: ClassVar[str] = ""
    #: The tags after ORIGIN and CODE, in document order.
    tags: ClassVar[tuple[Tag, ...]] = ()

    def __init_subclass__(cls, *, origin: str = "", code: str = "", meaning: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if code:
            cls.origin, cls.code, cls.meaning = origin, code, meaning
            cls.group = ORIGINS[origin]

    @classmethod
    def __pydantic_init_subclass__(cls, *, code: str = "", **_kwargs: Any) -> None:
        """Enter the catalogue; pydantic calls this once the fields are known."""
        cls.tags = tuple(_tags(cls))
        if code and _registry.setdefault((cls.origin, code), cls) is not cls:
            raise TypeError(f"{cls.origin} {code} is {_registry[cls.origin, code].__name__} already")

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_in_plain_words(cls, tags: Any, validate: ModelWrapValidatorHandler[Event]) -> Event:
        # pydantic catches ValueError and AssertionError alone, so InvalidEvent leaves the constructor as it is.
        if not cls.code:
            raise InvalidEvent([("", f"{cls.__name__} is no event; use one of its subclasses")])
        try:
            event = validate(tags)
        except ValidationError as error:
            problems = problems_of(error, cls.tags, tags, validate)
        else:
            size = len(to_json(event, by_alias=True, exclude_none=True))
            if size + _ENVELOPE_BYTES <= MAX_EVENT_BYTES:
                return event
            problems = [
                ("", f"its JSON takes {size} bytes; at most {MAX_EVENT_BYTES // 1024} KiB are allowed")
            ]
        # Raised outside of the except block, where pydantic's error, which holds the whole input, would be its context.
        raise InvalidEvent(problems, origin=cls.origin, code=cls.code)

    def to_mapping(self) -> dict[str, Any]:
        """Return the event as JSON values, of which ``parse_event`` makes an equal event.

        ORIGIN and CODE come first, then the tags in document order.
        """
        mapping: dict[str, Any] = {"ORIGIN": self.origin, "CODE": self.code}
        values = self.__dict__
        for tag in self.tags:
            value = values[tag.field]
            if value is None:
                continue
            mapping[tag.name] = value if tag.form.item is None else {tag.form.item[0]: list(value)}
        return mapping


def _tags(event: type[Event]) -> Iterator[Tag]:
    for name, field in event.model_fields.items():
        # A field whose default is not None (STATUSCODE's) is in every document, too.
        required = field.is_required() or field.default is not None
        yield Tag(_tag_name(name), name, required, _form(field.annotation, *field.metadata))


def _form(annotation: Any, *metadata: Any) -> Form:
    """Find the form of ``Annotated[…, form]``, ``Literal[…]``, or either ``| None``.

    pydantic hands over the metadata of a plain ``Annotated`` separately.
    """
    for item in (*metadata, *getattr(annotation, "__metadata__", ())):
        if isinstance(item, Form):
            return item
    if get_origin(annotation) is Literal:
        return closed_set(*get_args(annotation))
    for part in get_args(annotation):
        if part is not type(None):
            return _form(part)
    raise TypeError(
        f"{annotation} has no Form and is no Literal: annotate the field with a type of values.py."
    )
