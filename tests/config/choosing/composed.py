"""Configs to complete: each is composed once."""

from __future__ import annotations

import functools
from typing import Any

from mae.config.choices import Choices
from mae.config.composing import compose
from mae.config.schema.roots import RunConfig


@functools.cache
def _composed(root: str, overrides: tuple[str, ...]) -> RunConfig:
    return compose(root, overrides)


def choices_of(root: str, *overrides: str) -> Choices[Any]:
    """Return choices on a config of their own."""
    return Choices(_composed(root, overrides).model_copy(deep=True))
