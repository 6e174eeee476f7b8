"""What all models share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

T = TypeVar("T")

MOST_ROWS = 200
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


class Model(BaseModel):
    """Names in camelCase outside, unknown ones refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, allow_inf_nan=False
    )


def is_storable(text: str) -> bool:
    """Whether PostgreSQL has a place for it."""
    return "\x00" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def _storable(text: str) -> str:
    if not is_storable(text):
        raise ValueError("it has characters that cannot be stored (U+0000, lone surrogates)")
    return text


def _this_age(moment: datetime) -> datetime:
    if not EARLIEST <= moment <= LATEST:
        raise ValueError("it must be between the years 2000 and 2200")
    return moment


Storable = AfterValidator(_storable)
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=200), Storable]
LongText = Annotated[str, StringConstraints(min_length=1, max_length=4000), Storable]
Moment = Annotated[AwareDatetime, AfterValidator(_this_age)]
LetterState = Literal["open", "redriven", "discarded"]
Priority = Annotated[int, Field(ge=1, le=10, description="1 (first) to 10 (last)")]


class ListQuery(Model):
    """A page of a list."""

    cursor: str | None = Field(None, max_length=200, description="`next` of the page before")
    limit: int = Field(50, ge=1, le=MOST_ROWS, description="rows of a page")


class Page(Model, Generic[T]):
    """Some rows, and the cursor of those that follow; null after the last."""

    items: list[T]
    next: str | None
