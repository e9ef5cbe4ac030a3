"""The log of a packing: what is asked for, and the shards that are finished, so that a stopped one goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mae.data.shards.manifest import MANIFEST, Shard
from mae.data.statistics import PixelSums

LOG = ".progress.jsonl"


@dataclass(frozen=True)
class Finished:
    """A finished shard.

    Attributes:
        split: Its split.
        shard: The file.
        after: Images of the source that it accounts for end before this one.
        total: Sums per channel of the images' mean values.
        squares: Sums of their mean squares.
        unreadable: Names and reasons of the images that were left out of it.
    """

    split: str
    shard: Shard
    after: int
    total: list[float]
    squares: list[float]
    unreadable: list[str]

    @property
    def sums(self) -> PixelSums:
        """The sums over its images."""
        return PixelSums(self.shard.images, np.array(self.total), np.array(self.squares))


class PackingLog:
    """Lines of JSON in the folder that is packed into: first what is asked for, then a line a shard.

    Args:
        root: The folder; created where it is not there.
        task: What is asked for.

    Raises:
        ValueError: The folder holds something else, or a packing of something else was begun in it.
    """

    def __init__(self, root: Path, task: Mapping[str, Any]) -> None:
        self.root = root
        self.path = root / LOG
        self.finished: list[Finished] = []
        if self.path.is_file():
            self._go_on(task)
        elif root.exists() and not root.is_dir():
            raise ValueError(f"{root} is a file: give a folder")
        elif (root / MANIFEST).is_file():
            raise ValueError(f"{root} is packed already: choose another folder, or delete it to pack anew")
        elif root.is_dir() and any(root.iterdir()):
            raise ValueError(f"{root} is not empty: choose a new folder")
        else:
            root.mkdir(parents=True, exist_ok=True)
        # Written anew, as a process that is killed may leave half a line.
        content = "".join(f"{json.dumps(line)}\n" for line in [task, *map(asdict, self.finished)])
        partial = self.path.with_name(f"{LOG}.partial")
        partial.write_text(content, encoding="utf-8")
        partial.replace(self.path)

    def of(self, split: str) -> list[Finished]:
        """Return the finished shards of a split, in order."""
        return [finished for finished in self.finished if finished.split == split]

    def add(self, finished: Finished) -> None:
        """Write down that a shard is finished."""
        self.finished.append(finished)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(asdict(finished))}\n")

    def close(self) -> None:
        """Delete the log: all is done."""
        self.path.unlink()

    def _go_on(self, task: Mapping[str, Any]) -> None:
        whole = [
            line for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")
        ]
        begun, *lines = [json.loads(line) for line in whole] or [{}]
        if not lines:  # nothing is lost by beginning anew
            return
        for key, value in task.items():
            if begun.get(key) != value:
                raise ValueError(
                    f"{self.root} holds a packing that was begun with other {key}: {_difference(begun.get(key), value)}; "
                    f"repeat its command to go on, or choose another folder"
                )
        if any("count" in line for line in lines):  # of pixels
            raise ValueError(
                f"{self.root} holds a packing that an earlier version began, in whose statistics large images count more: "
                f"delete it and pack again"
            )
        self.finished = [Finished(**{**line, "shard": Shard(**line["shard"])}) for line in lines]
        for finished in self.finished:
            if problem := finished.shard.problem(self.root):
                raise ValueError(f"{problem}, so the packing cannot go on: delete {self.root} and pack again")


def _difference(then: Any, now: Any) -> str:
    """Return the first thing in which two values differ, in words."""
    if isinstance(then, dict) and isinstance(now, dict):
        key = next(key for key in [*then, *now] if then.get(key) != now.get(key))
        return f"{key} was {_short(then.get(key))} and is {_short(now.get(key))}"
    return f"{_short(then)} then, {_short(now)} now"


def _short(value: Any) -> str:
    return json.dumps(value).replace('"', "")[:80]
