"""The tasks by name: the options of each are a class of ``mae.config.schema.protocols``."""

from __future__ import annotations

from typing import Any

from mae.config.schema.roots import FinetuneConfig
from mae.downstream.tasks.classification import Classification
from mae.downstream.tasks.segmentation import Segmentation
from mae.downstream.tasks.task import Task

TASKS: dict[str, type[Task[Any]]] = {"classification": Classification, "segmentation": Segmentation}


def create_task(config: FinetuneConfig) -> Task[Any]:
    """Return the task of a config."""
    return TASKS[config.task.name](config)
