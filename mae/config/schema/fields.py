"""How a key is declared, and what a wrong value is called."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticUndefined, core_schema


def key(
    help: str,
    *,
    chosen_by: str | None = None,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    default: Any = PydanticUndefined,
) -> Any:
    """Declare a key of a group.

    Args:
        help: A line that says what it means.
        chosen_by: What fills the null of a ``Chosen`` key, such as ``the images``. None where null is no value, or, in an
            optional type, has a meaning of its own.
        least: Least value.
        above: What the value is above.
        most: Greatest value.
        below: What the value is below.
        default: Of runs of earlier versions, which did not know the key; without one it must be there.
    """
    if chosen_by is not None and default is PydanticUndefined:
        default = None
    extra: JsonDict | None = {"chosen_by": chosen_by} if chosen_by else None
    return Field(default, description=help, ge=least, gt=above, le=most, lt=below, json_schema_extra=extra)


def chosen_by(field: FieldInfo) -> str | None:
    """Return what fills a null of this key; None where nothing does."""
    extra = field.json_schema_extra
    return str(extra["chosen_by"]) if isinstance(extra, dict) and "chosen_by" in extra else None


class _Nullable:
    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.nullable_schema(handler(source))


T = TypeVar("T")
Chosen = Annotated[T, _Nullable()]
"""The type of a key that may be null until something chooses: read it afterwards, when it is a T."""


class Group(BaseModel):
    """Keys that belong together. Values are checked when they are read and when they are set; unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid", strict=True, validate_assignment=True, allow_inf_nan=False, protected_namespaces=()
    )
