"""How runs end for a person: results, or one line that says why not."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console


class Job(Protocol):
    """A stage whose every part has been built and checked."""

    def run(self) -> Mapping[str, Any]:
        """Do the work; return the results."""
        ...


def run_job(job: Job) -> None:
    """Run a job; what ends it from outside, or in its data, is one line: exit status 130 where it was stopped, else 2."""
    # Not at the top: --help need not wait for Lightning.
    from mae.data.loading.batches import AnotherLoaderError
    from mae.data.loading.unreadable import TooManyUnreadableError
    from mae.data.reading.decode import UnreadableImageError
    from mae.data.segmentation.masks import MaskError
    from mae.data.streaming.remote import UnreachableError
    from mae.training.callbacks.checkpointing import StoppedError

    try:
        job.run()
    except StoppedError as stopped:
        Console(stderr=True, soft_wrap=True).print(f"[bold]{_escape(str(stopped))}[/]", highlight=False)
        sys.exit(130)
    except (TooManyUnreadableError, UnreachableError, UnreadableImageError, MaskError, AnotherLoaderError) as error:
        text = str(error)
        if "Traceback" in text:  # of the worker that it comes from; its last line is the error
            text = text.splitlines()[-1].partition("Error: ")[2]
        with one_line_errors():
            raise ValueError(text) from None


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn the errors that a user can cause into one line and exit status 2."""
    try:
        yield
    except (ValueError, FileNotFoundError, ImportError) as error:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {_escape(str(error))}", highlight=False)
        sys.exit(2)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
