"""What is null in a config is filled by choices, each with its reason."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mae.config.schema.roots import RunConfig

C = TypeVar("C", bound=RunConfig)


@dataclass(frozen=True)
class Machine:
    """What the run has to work with."""

    accelerated: bool
    cores: int

    @classmethod
    def here(cls, accelerated: bool) -> Machine:
        """Return this machine; the cores are those that this process may use."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cls(accelerated, cores)


@dataclass(frozen=True)
class Choice:
    """One value, and why."""

    key: str
    value: Any
    reason: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}: {self.reason}"


class Choices(Generic[C]):
    """Fills what is null in a config, and keeps the reasons."""

    def __init__(self, config: C) -> None:
        self.config = config
        self.made: list[Choice] = []

    def get(self, key: str) -> Any:
        """Return the value at a dotted key, None where a part of the way is missing."""
        node: Any = self.config
        for part in key.split("."):
            node = getattr(node, part, None)
        return node

    def fill(self, key: str, value: Any, reason: str) -> Any:
        """Set a dotted key where it is null; return what then stands there."""
        if self.get(key) is None:
            *groups, leaf = key.split(".")
            node: Any = self.config
            for group in groups:
                node = getattr(node, group)
            setattr(node, leaf, value)
            self.made.append(Choice(key, value, reason))
        return self.get(key)


def largest_divisor(number: int, wanted: int) -> int:
    """Return the largest divisor of a number that is not above the wanted one; 1 always is."""
    return next(value for value in range(max(1, wanted), 0, -1) if number % value == 0)


def multiple(number: int, of: int) -> int:
    """Return the largest multiple that is not above a number; ``of`` itself where there is none."""
    return max(1, number // of) * of


def rounded(number: float, low: int, high: int) -> int:
    """Return a number within bounds, with two significant digits."""
    return int(float(f"{min(high, max(low, number)):.2g}"))
