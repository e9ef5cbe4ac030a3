"""Images that could not be read: counted, named in a file, and no more of them than was allowed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path


class TooManyUnreadableError(ValueError):
    """More images than the budget allows cannot be read."""


class UnreadableImages:
    """What could not be read so far, each image once; a resumed run goes on counting.

    Every rank counts what it meets itself, and all write to one file.

    Args:
        total: Images in all splits.
        budget: Share of them that may be unreadable; one image always may, unless it is 0.
        path: File that names them, a line an image; None keeps them in memory.
    """

    def __init__(self, total: int, budget: float, path: Path | None = None) -> None:
        self.total = total
        self.budget = budget
        self.path = path
        self._seen: set[str] = set()

    @property
    def most(self) -> int:
        """Images that may be unreadable."""
        return max(1 if self.budget else 0, int(self.budget * self.total))

    def count(self) -> int:
        """Return how many images could not be read, on all devices and in earlier parts of the run."""
        return len(self._known() | self._seen)

    def _known(self) -> set[str]:
        """Return the names in the file."""
        if self.path is None or not self.path.is_file():
            return set()
        return {_name(line) for line in self.path.read_text(encoding="utf-8").split("\n") if line}

    def add(self, messages: Iterable[str]) -> None:
        """Count images that could not be read, and name them in the file.

        Raises:
            TooManyUnreadableError: They are past the budget.
        """
        # A name may hold anything but a slash: what a line cannot hold is escaped.
        lines = [message.encode("utf-8", "backslashreplace").decode().replace("\n", "\\n") for message in messages]
        if all(_name(line) in self._seen for line in lines):
            return
        known = self._known() | self._seen
        new = [line for line in dict.fromkeys(lines) if _name(line) not in known]
        self._seen = known | set(map(_name, new))
        if self.path is not None and new:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in new)
        count, where = len(self._seen), f", listed in {self.path}" if self.path else ""
        if count > self.most:
            raise TooManyUnreadableError(
                f"{count:,} of {self.total:,} images cannot be read{where}: more than data.max_unreadable={self.budget:g} allows; "
                f"mend or remove them (mae data check finds them all), or raise it. Now: {lines[0]}"
            )
        if not known:
            warnings.warn(
                f"{lines[0]}; the next image stands in for it, here and for others like it{where}", stacklevel=2
            )


def _name(line: str) -> str:
    """Return what a message names: an image counts once, whatever the reason."""
    return line.partition(" cannot be read")[0]
