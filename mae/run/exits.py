"""How runs end for a person: results, or one line that says why not.

======  ===========================================================================================================
status  meaning
======  ===========================================================================================================
0       done
2       refused: a value, a file or the data are wrong, and the line says what to change
3       diverged: the loss is no number; checkpoints are of before, and a pretraining run has written its report
130     stopped by a signal, at a step that is kept: ``resume=true`` goes on
======  ===========================================================================================================
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, Protocol

from rich.console import Console


class ExitStatus(IntEnum):
    """Of the scripts and the ``mae`` command."""

    REFUSED = 2
    DIVERGED = 3
    STOPPED = 130


class Job(Protocol):
    """A stage whose every part has been built and checked."""

    def run(self) -> Mapping[str, Any]:
        """Do the work; return the results."""
        ...


def run_job(job: Job) -> None:
    """Run a job; what ends it early is one line and an exit status of the table above."""
    # Not at the top: --help need not wait for Lightning.
    from mae.data.loading.batches import AnotherLoaderError
    from mae.data.loading.unreadable import TooManyUnreadableError
    from mae.data.reading.decode import UnreadableImageError
    from mae.data.segmentation.masks import MaskError
    from mae.data.streaming.remote import UnreachableError
    from mae.training.callbacks.checkpointing import StoppedError
    from mae.training.callbacks.divergence import DivergedError

    try:
        job.run()
    except StoppedError as stopped:
        Console(stderr=True, soft_wrap=True).print(f"[bold]{_escape(str(stopped))}[/]", highlight=False)
        sys.exit(ExitStatus.STOPPED)
    except DivergedError as diverged:
        _say_error(diverged)
        sys.exit(ExitStatus.DIVERGED)
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
        _say_error(error)
        sys.exit(ExitStatus.REFUSED)


def _say_error(error: Exception) -> None:
    Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {_escape(str(error))}", highlight=False)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
