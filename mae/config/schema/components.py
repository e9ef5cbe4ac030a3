"""Groups whose keys are the arguments of a class: ``model``, ``decoder``, ``masking``, ``objective``."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from mae.config.schema.fields import Group


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

    def get(self, option: str) -> Any:
        """Return an argument, None where it is not given."""
        return self.options.get(option)
