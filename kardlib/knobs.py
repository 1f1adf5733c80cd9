"""What settings are made of: groups that are closed and frozen, and the kinds of values that several of them have."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from kardlib.errors import KardError

G = TypeVar("G", bound="Group")


def _refuse_twice(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise AssertionError("a value comes twice: leave one of them out")  # a ValueError names its settings itself
    return values


Distinct = AfterValidator(_refuse_twice)
Lengths = Annotated[tuple[Annotated[int, Field(ge=2, le=2**16)], ...], Distinct]  # of strings, or how many
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # as numpy takes them
Batch = Annotated[int, Field(le=2**16)]  # more is a slip, which would train for minutes before it showed
Count = Annotated[int, Field(le=2**20)]  # of the world's texts


class SettingsError(KardError, ValueError):
    """A setting does not exist or is out of range; the message is one sentence that says which one and what fits."""


class Group(BaseModel):
    """Settings that belong together: frozen, so that a run uses what it was named by, and closed to unknown names."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_truth_for_numbers(cls, values: Any) -> Any:
        for name, field in cls.model_fields.items() if isinstance(values, Mapping) else ():
            kinds, value = {field.annotation, *get_args(field.annotation)}, values.get(name)
            if kinds & {int, float} and isinstance(value, bool):
                raise AssertionError(f"{name} should be a number, not {str(value).lower()}")
            if isinstance(value, list | tuple) and any(isinstance(part, bool) for part in value):
                raise AssertionError(f"{name} should be a list without true and false")
        return values


def validate(group: type[G], values: Mapping[str, Any]) -> G:
    """`group(**values)`, with pydantic's report turned into one sentence. Raises SettingsError."""
    try:
        return group.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        message = re.sub("^(Value error|Assertion failed), ", "", first["msg"])
        if first["type"] == "tuple_type":
            message = f"should be a list in brackets, e.g. {json.dumps([first['input']], default=str)}"
        raise SettingsError(message if first["type"] == "value_error" or not name else f"{name}: {message}") from None


def flatten(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted names and values: `{"retrieval": {"k": 1}}` -> `("retrieval.k", 1)`."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from ((f"{name}.{inner}", deep) for inner, deep in flatten(value))
        else:
            yield name, value


def is_plain_url(text: str) -> bool:
    """Whether a text is an http(s) URL with a host, and without user, password, query or fragment."""
    try:
        url = urlsplit(text)
        _ = url.port  # a wrong port is an error only when it is asked for
    except ValueError:
        return False
    return (
        url.scheme in ("http", "https") and bool(url.hostname) and not ("@" in url.netloc or url.query or url.fragment)
    )
