"""Where metrics go: a CSV file always, wandb on request."""

from __future__ import annotations

import csv
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
            self._rewrite()

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
        if new or same_step or len(self.rows) == 1:
            self._rewrite()
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


def create_loggers(config: dict[str, Any], folder: Path, resume_step: int | None) -> list[Logger]:
    """Return metrics.csv's logger, and wandb's where the config group ``logger`` says so.

    Args:
        config: The whole config; wandb shows it beside the curves.
        folder: The run folder.
        resume_step: Step of the checkpoint that the run goes on from, if it does.

    Raises:
        ImportError: wandb is asked for and not installed.
    """
    options = config["logger"]
    loggers: list[Logger] = [MetricsFile(folder, resume_step)]
    if options["name"] == "wandb":
        loggers.append(
            wandb_logger(
                folder,
                project=options["project"],
                name=options["run_name"],
                offline=options["offline"],
                config=config,
            )
        )
    return loggers


def wandb_logger(folder: Path, *, project: str, name: str | None, offline: bool, config: dict[str, Any]) -> Logger:
    """Return a wandb logger whose run id is kept in the run folder, so that a resume continues the same curves.

    Raises:
        ImportError: The extra is not installed.
    """
    try:
        import wandb  # noqa: F401
        from lightning.pytorch.loggers import WandbLogger
    except ImportError:
        raise ImportError(
            "logger=wandb needs the extra 'wandb', which is not installed: pip install -e '.[wandb]'"
        ) from None
    identity = folder / "wandb_id.txt"
    logger = WandbLogger(
        save_dir=str(folder),
        project=project,
        name=name or folder.name,
        offline=offline,
        id=identity.read_text().strip() if identity.is_file() else None,
        resume="allow",
        config=config,
    )
    if getattr(rank_zero_only, "rank", 0) == 0 and not identity.is_file():
        identity.write_text(str(logger.experiment.id) + "\n")
    return logger
