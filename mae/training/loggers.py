"""Where metrics go: a CSV file always, wandb on request."""

from __future__ import annotations

import csv
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class MetricsFile(Logger):
    """``metrics.csv``: a row per logging step, a column per metric, kept across a resume.

    Lightning's own CSVLogger deletes the file when a run is resumed.

    Args:
        folder: Where the file lies.
        keep_until: Step of the resume; rows past it were written by work that is now done again, and are dropped.
    """

    def __init__(self, folder: str | Path, keep_until: int | None = None) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self.rows: list[dict[str, Any]] = []
        self.columns = ["step", "epoch"]
        if keep_until is not None and self.path.is_file():
            with self.path.open(newline="") as file:
                reader = csv.DictReader(file)
                self.rows = [row for row in reader if int(row["step"]) <= keep_until]
                self.columns = list(reader.fieldnames or self.columns)
        # The file itself is touched with the first row that the run adds, and by one process alone.
        self._stale = True

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "csv"

    @property
    def version(self) -> str:
        """There is one file a run."""
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The run's config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add to the row of this step, or append one."""
        values = {key: value for key, value in metrics.items() if key != "step"}
        new = [key for key in values if key not in self.columns]
        same_step = bool(self.rows) and int(self.rows[-1]["step"]) == step
        if same_step:
            self.rows[-1].update(values)
        else:
            self.rows.append({"step": step, **values})
        self.columns += new
        if new or same_step or self._stale:
            self._rewrite()
            self._stale = False
        else:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(self.rows[-1])

    def _rewrite(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)
        partial.replace(self.path)


def read_metrics(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the (step, value) pairs of each metric in a metrics.csv."""
    series: dict[str, list[tuple[int, float]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            for key, value in row.items():
                if key not in ("step", "epoch") and value:
                    series.setdefault(key, []).append((int(row["step"]), float(value)))
    return series


def create_wandb_logger(
    folder: Path,
    *,
    project: str,
    run_name: str | None,
    offline: bool,
    id: str,
    config: Mapping[str, Any],
) -> Logger:
    """Return wandb's logger, which writes into the run folder alone.

    Args:
        folder: The run folder.
        project: Of wandb.
        run_name: None takes the folder's.
        offline: Write to the folder alone, for ``wandb sync``.
        id: Of the run: the same after a resume, which goes on with the same curves.
        config: Shown beside the curves.

    Raises:
        ImportError: wandb is not installed.
    """
    try:
        import wandb
        from lightning.pytorch.loggers import WandbLogger
    except ImportError:
        raise ImportError(
            "logger=wandb needs the extra 'wandb', which is not installed: pip install -e '.[wandb]'"
        ) from None
    if wandb.run is not None:  # of an earlier run in this process, as in a sweep; Lightning would write on into it
        wandb.finish()
    for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        os.environ[variable] = str(folder.absolute() / "wandb")
    return WandbLogger(
        save_dir=str(folder),
        project=project,
        name=run_name or folder.name,
        offline=offline,
        id=id,
        resume="allow",
        config=dict(config),
    )
