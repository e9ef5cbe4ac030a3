"""A run that goes on has the config that it was started with, but for what may differ."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from mae.config.reading import leaves, read_config
from mae.config.schema.roots import FinetuneConfig, RunConfig
from mae.config.schema.training import RETIRED

C = TypeVar("C", bound=RunConfig)

FREE_ON_RESUME = (
    *("resume", "run_dir", "trainer", "logger", "callbacks"),
    *("data.root", "data.index", "data.num_workers", "data.max_unreadable"),
)
"""What may differ when a run goes on: where and how fast it runs, not what it computes."""


def resumed_config(config: C, stored: Mapping[str, Any], overrides: Sequence[str]) -> C:
    """Return the config of a run that goes on: as it was started, but for what may differ.

    Repeating the first command and giving ``run_dir`` and ``resume=true`` alone are both fine. What a run of an earlier version
    did not know has its default, and what this one does not know any more is left out.

    Raises:
        ValueError: An override would change what the run computes.
    """
    if ("checkpoint" in stored) != isinstance(config, FinetuneConfig):
        other = "train_finetune.py" if "checkpoint" in stored else "train_pretrain.py"
        raise ValueError(f"run_dir={config.run_dir} holds a run of {other}: resume it with that script")
    merged = copy.deepcopy(dict(stored))
    if isinstance(config, FinetuneConfig):
        merged.pop("decoder", None)  # which presets of the model brought along, once
    for key in RETIRED:
        group, _, leaf = key.partition(".")
        merged.get(group, {}).pop(leaf, None)
    now, then = leaves(config.plain()), leaves(stored)
    for text in overrides:
        key = text.partition("=")[0].lstrip("+~")
        # An experiment sets values of every group.
        for leaf in (name for name in now if name == key or name.startswith(f"{key}.") or key == "experiment"):
            if now[leaf] is None or leaf == "resume":
                continue
            if any(leaf == free or leaf.startswith(f"{free}.") for free in FREE_ON_RESUME):
                _set(merged, leaf, now[leaf])
            elif leaf in then and now[leaf] != then[leaf]:
                raise ValueError(
                    f"{leaf}={now[leaf]} differs from the {then[leaf]} that {config.run_dir} was started with: "
                    f"leave it out, or start a new run"
                )
    return read_config(type(config), {**merged, "run_dir": config.run_dir, "resume": True})


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *groups, leaf = key.split(".")
    for group in groups:
        values = values.setdefault(group, {})
    values[leaf] = value
