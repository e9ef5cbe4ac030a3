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
        self._seen: set[str] | None = None

    @property
    def most(self) -> int:
        """Images that may be unreadable."""
        return max(1 if self.budget else 0, int(self.budget * self.total))

    @property
    def messages(self) -> set[str]:
        """Name and reason of each, those of an earlier part of the run among them."""
        if self._seen is None:
            known = self.path is not None and self.path.is_file()
            self._seen = set(self.path.read_text(encoding="utf-8").splitlines()) if known and self.path else set()
        return self._seen

    def add(self, messages: Iterable[str]) -> None:
        """Count images that could not be read, and name them in the file.

        Raises:
            TooManyUnreadableError: They are past the budget.
        """
        new = [message for message in dict.fromkeys(messages) if message not in self.messages]
        if not new:
            return
        first = not self.messages
        self.messages.update(new)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines(f"{message}\n" for message in new)
        count, where = len(self.messages), f", listed in {self.path}" if self.path else ""
        if count > self.most:
            raise TooManyUnreadableError(
                f"{count:,} of {self.total:,} images cannot be read{where}: more than data.max_unreadable={self.budget:g} allows; "
                f"mend or remove them (mae data check finds them all), or raise it. The first: {new[0]}"
            )
        if first:
            warnings.warn(
                f"{new[0]}; the next image stands in for it, here and for others like it{where}", stacklevel=2
            )
