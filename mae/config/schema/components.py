"""Groups whose keys are the arguments of a class: ``model``, ``decoder``, ``masking``, ``objective``."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from mae.config.schema.fields import Group

TARGET = "_target_"


class Component(Group):
    """A part that is built by name, or of a class of the user's own; further keys are the arguments of its class.

    Attributes:
        name: Under which the class is registered; None where something else decides.
        class_path: A class of anybody's, ``package.module.Class``, in place of a name; ``_target_`` in YAML.
    """

    model_config = ConfigDict(extra="allow")

    name: str | None = None
    class_path: str | None = Field(default=None, alias="_target_")

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of the class that are given, or chosen."""
        return dict(self.__pydantic_extra__ or {})

    @property
    def arguments(self) -> dict[str, Any]:
        """Name and options."""
        return {"name": self.name, **self.options}

    @property
    def title(self) -> str | None:
        """What a person calls it."""
        return self.class_path or self.name

    def get(self, option: str) -> Any:
        """Return an argument, None where it is not given."""
        return self.options.get(option)

    @model_serializer(mode="wrap")
    def _without_a_class(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        return {key: value for key, value in values.items() if value is not None or key not in (TARGET, "class_path")}
