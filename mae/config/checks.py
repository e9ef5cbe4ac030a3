"""Values of a config that are wrong by themselves, before anything is opened or built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Config = dict[str, Any]


def leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= leaves(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


NUMBER = (int, float)
RULES: dict[str, tuple[tuple[type, ...], float | None]] = {
    "seed": ((int,), 0),
    "epochs": ((int,), 1),
    "batch_size": ((int,), 1),
    "labels_per_class": ((int,), 1),
    "label_fraction": (NUMBER, 0),
    "masking.ratio": (NUMBER, None),
    "masking.masked": (NUMBER, 0),
    "masking.swapped": (NUMBER, 0),
    "model.position_std": (NUMBER, 0),
    "model.token_std": (NUMBER, 0),
    "optim.base_lr": (NUMBER, 0),
    "optim.weight_decay": (NUMBER, 0),
    "optim.momentum": (NUMBER, 0),
    "optim.warmup_epochs": (NUMBER, 0),
    "data.num_workers": ((int,), 0),
    "data.min_scale": (NUMBER, 0),
    "optim.final_lr": (NUMBER, 0),
    "optim.step_epochs": (NUMBER, 0.001),
    "optim.clip_norm": (NUMBER, 0),
    "data.channels": ((int,), 1),
    "data.repeats": ((int,), 1),
    "data.max_unreadable": (NUMBER, 0),
    "data.images": ((int,), 1),
    "data.buffer": ((int,), 1),
    "data.lanes": ((int,), 1),
    "trainer.accumulate": ((int,), 1),
    "trainer.validate_every": ((int,), 1),
    "trainer.save_minutes": (NUMBER, 0),
    "decoder.width": ((int,), 1),
    "decoder.depth": ((int,), 1),
    "decoder.heads": ((int,), 1),
    "callbacks.probe_images": ((int,), 1),
    "callbacks.probe_memory": ((int,), 1),
    "protocol.blocks": (NUMBER, 0),
    "protocol.draws": ((int,), 1),
    "protocol.hidden": ((int,), 1),
    "protocol.heads": ((int,), 1),
    "protocol.mlp_ratio": (NUMBER, 0.1),
    "protocol.head_std": (NUMBER, 0),
    "protocol.layer_decay": (NUMBER, 0),
    "protocol.drop_path": (NUMBER, 0),
    "protocol.label_smoothing": (NUMBER, 0),
    "protocol.mixup": (NUMBER, 0),
    "protocol.cutmix": (NUMBER, 0),
    "protocol.rand_augment": ((int,), 0),
    "protocol.erasing": (NUMBER, 0),
    "protocol.ema": (NUMBER, 0),
    "task.neck_width": ((int,), 1),
    "task.width": ((int,), 1),
    "task.tokens": ((int,), 1),
    "task.token_width": ((int,), 1),
    "model.tokens": ((int,), 1),
    "model.token_width": ((int,), 1),
    "model.patch_size": ((int,), 1),
    "model.width": ((int,), 1),
    "model.depth": ((int,), 1),
    "model.heads": ((int,), 1),
}
"""Type and least value of the numbers that a user may set; null always means: choose for me."""

MOST: dict[str, float] = {
    "label_fraction": 1,
    "data.max_unreadable": 1,
    "protocol.label_smoothing": 0.99,
    "protocol.drop_path": 0.99,
    "protocol.layer_decay": 1,
    "protocol.rand_augment": 10,
    "protocol.erasing": 1,
    "protocol.ema": 0.999999,
}
"""Greatest value of some of them."""

NEVER_CHOSEN = (
    "data.repeats",
    "data.decode",
    "data.max_unreadable",
    "data.buffer",
    "trainer.save_minutes",
    "optim.weight_decay",
    "optim.momentum",
    "optim.betas",
    "optim.final_lr",
    "optim.schedule",
    "optim.step_epochs",
    "protocol.head_std",
    "task.neck_width",
    "task.width",
    "task.tokens",
    "task.token_width",
    "model.tokens",
    "model.token_width",
    "masking.masked",
    "masking.swapped",
    "protocol.draws",
)
"""Values that nothing chooses, so that they cannot be null."""

SWITCHES = (
    *(
        "resume",
        "data.flip",
        "data.stream",
        "objective.normalize",
        "callbacks.knn",
        "callbacks.probe",
        "callbacks.rank",
    ),
    *("trainer.progress", "trainer.compile", "trainer.grad_checkpointing"),
    *("baselines", "evaluate_only", "protocol.batch_norm", "protocol.sweep", "protocol.frozen"),
)
LISTS = {
    "protocol.sweep_factors": "numbers",
    "optim.betas": "two numbers",
    "data.mean": "one number per channel",
    "data.std": "one number per channel",
}


def check_values(config: Config) -> None:
    """Raise one ValueError that names every value of a wrong type or below its least."""
    flat = leaves(config)
    wrong = []
    for key, (kinds, least) in RULES.items():
        value = flat.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, kinds):
            wrong.append(f"{key}={value!r} is not a {'' if float in kinds else 'whole '}number")
        elif least is not None and flat[key] < least:
            wrong.append(f"{key}={value} is less than {least:g}")
        elif key in MOST and flat[key] > MOST[key]:
            wrong.append(f"{key}={value} is more than {MOST[key]:g}")
    size = flat.get("data.image_size")
    if size is not None and not _is_size(size):
        wrong.append(f"data.image_size={size} is neither a side nor [height, width] in pixels")
    for key in SWITCHES:
        if flat.get(key) not in (None, True, False):
            wrong.append(f"{key}={flat[key]} is neither true nor false")
    for key, meant in LISTS.items():
        value = flat.get(key)
        if value is not None and not (isinstance(value, list) and all(isinstance(part, NUMBER) for part in value)):
            wrong.append(f"{key}={value} is not a list of {meant}")
    betas = flat.get("optim.betas")
    if isinstance(betas, list) and len(betas) != 2:
        wrong.append(f"optim.betas={betas} is not a list of {LISTS['optim.betas']}")
    wrong += [f"{key}=null is not a value, and nothing chooses one" for key in NEVER_CHOSEN if flat.get(key, 0) is None]
    if flat.get("protocol.pool") not in (None, "mean", "token"):
        wrong.append(f"protocol.pool={flat['protocol.pool']} is neither mean nor token")
    if flat.get("task.name", "classification") not in ("classification", "segmentation"):
        wrong.append(f"task.name={flat['task.name']} is neither classification nor segmentation")
    if flat.get("protocol.head") not in (None, "linear", "mlp"):
        wrong.append(f"protocol.head={flat['protocol.head']} is neither linear nor mlp")
    if flat.get("optim.schedule") not in (None, "cosine", "steps"):
        wrong.append(f"optim.schedule={flat['optim.schedule']} is neither cosine nor steps")
    if flat.get("logger.name") not in (None, "csv", "wandb"):
        wrong.append(f"logger.name={flat['logger.name']} is neither csv nor wandb")
    if flat.get("data.decode") not in (None, "cpu", "device"):
        wrong.append(f"data.decode={flat['data.decode']} is neither cpu nor device")
    if flat.get("data.bits") not in (None, 8, 16):
        wrong.append(f"data.bits={flat['data.bits']} is neither 8 nor 16")
    if wrong:
        raise ValueError("; ".join(wrong))


def _is_size(size: Any) -> bool:
    sides = size if isinstance(size, list) else [size, size]
    return len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides)
