"""The folder of a run: everything that a run writes, and nothing outside it."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from mae.checkpoints.read import read_header
from mae.run.environment import environment


def is_first_process() -> bool:
    """Whether this is rank 0, as far as the environment tells before a trainer exists."""
    return getattr(rank_zero_only, "rank", 0) == 0


ENVIRONMENT = "MAE_RUN_DIR"
"""Tells the processes that a launcher starts on this machine which folder the first one chose."""


class RunFolder:
    """Paths of a run.

    Args:
        path: The folder.
        resume: Whether an earlier part of the run may be there.

    Raises:
        ValueError: It holds a run, and ``resume`` is off.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self.path = path
        self.resume = resume
        if path.is_file():
            raise ValueError(f"run_dir={path} is a file: give a folder")
        holds_run = (path / "config.yaml").is_file()
        if holds_run and not resume and is_first_process():
            raise ValueError(
                f"run_dir={path} already holds a run: resume=true continues it, another run_dir starts a new one"
            )

    @property
    def last_checkpoint(self) -> Path | None:
        """The state to resume from, where the run is to go on and has one."""
        path = self.path / "checkpoints" / "last.ckpt"
        return path if self.resume and path.is_file() else None

    @property
    def stored_config(self) -> dict[str, Any] | None:
        """The config that the run was started with, where there is one."""
        path = self.path / "config.yaml"
        if not path.is_file():
            return None
        stored = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(stored, dict), "config.yaml is written by start()"
        return {str(key): value for key, value in stored.items()}

    @cached_property
    def header(self) -> Mapping[str, Any]:
        """What the checkpoint to resume from holds, read once and without its tensors, which stay on the disk until they are used.

        Raises:
            ValueError: It is cut off, or no checkpoint.
        """
        path = self.last_checkpoint
        assert path is not None, "there is a state to resume from"
        return read_header(path)

    def resume_step(self) -> int | None:
        """Return the optimizer step that the run goes on from, if it does."""
        return None if self.last_checkpoint is None else int(self.header["global_step"])

    def earlier_results(self) -> dict[str, Any]:
        """Return the results of an earlier part of the run."""
        path = self.path / "results.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if self.resume and path.is_file() else {}

    @rank_zero_only
    def start(self, config: Mapping[str, Any]) -> None:
        """Write config.yaml and environment.json."""
        self.path.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(OmegaConf.create(dict(config)), self.path / "config.yaml")
        self.write_json("environment.json", environment())

    @rank_zero_only
    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a file, complete or not at all."""
        partial = self.path / f".{name}"
        # JSON knows no NaN: a loss that diverged is null.
        valid = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in content.items()
        }
        partial.write_text(json.dumps(valid, indent=2) + "\n", encoding="utf-8")
        partial.replace(self.path / name)


def choose_run_folder(given: str | None, stage: str, resume: bool) -> RunFolder:
    """Return the folder of a run: as given, or ``runs/<stage>/<time>``.

    Raises:
        ValueError: It holds a run; or several processes were started from outside and would each choose their own.
    """
    path = given or os.environ.get(ENVIRONMENT)
    if path is None:
        if resume:
            raise ValueError("resume=true needs to know which run: run_dir=DIR")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError("several processes were started from outside: run_dir=DIR must name the folder they share")
        path = stamp = f"runs/{stage}/{time.strftime('%Y-%m-%d_%H-%M-%S')}"
        number = 2
        while Path(path).exists():  # two runs in one second, as in a sweep
            path, number = f"{stamp}_{number}", number + 1
    return RunFolder(Path(path), resume)


@contextmanager
def shared_with_children(folder: RunFolder) -> Iterator[None]:
    """Let processes that the launcher starts within use this folder."""
    before = os.environ.get(ENVIRONMENT)
    os.environ[ENVIRONMENT] = str(folder.path)
    try:
        yield
    finally:
        if before is None:
            del os.environ[ENVIRONMENT]
        else:
            os.environ[ENVIRONMENT] = before
