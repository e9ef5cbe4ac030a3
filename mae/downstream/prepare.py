"""The second stage from its config: what trains, what measures frozen features, and what scores a finished model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mae.config.schema.roots import FinetuneConfig
from mae.downstream.evaluation import prepare_evaluation
from mae.downstream.frozen_features import prepare_features
from mae.downstream.tasks.registry import create_task
from mae.downstream.training import prepare_training
from mae.run.exits import Job
from mae.run.folder import RunFolder


def prepare(config: FinetuneConfig, overrides: Sequence[str] = ()) -> Job:
    """Check everything and build every part, before any work starts.

    Args:
        config: The composed config; null values are chosen here.
        overrides: What the user gave, which a resume checks against the run.

    Raises:
        ValueError: A value is wrong, or things do not fit each other.
        FileNotFoundError: A folder or checkpoint does not exist.
        ImportError: An extra is needed and not installed.
    """
    if config.resume and config.run_dir is not None:
        stored = RunFolder(Path(config.run_dir), resume=True).stored_config or {}
        if stored.get("evaluate_only") or stored.get("protocol", {}).get("name") == "features":
            raise ValueError(
                f"run_dir={config.run_dir} holds an evaluation, which cannot be resumed: start it anew in another run_dir"
            )
    if config.evaluate_only:
        return prepare_evaluation(config, overrides)
    create_task(config).check_protocol()
    if not config.protocol.trains:
        return prepare_features(config, overrides)
    return prepare_training(config, overrides)
