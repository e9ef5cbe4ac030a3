"""A second stage that trains: every part is built and checked before work starts."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mae.config.choosing.finetuning import choose_layer_decay
from mae.config.schema.protocols import Finetune, LinearProbe, Protocol, Tuning
from mae.config.schema.roots import FinetuneConfig
from mae.downstream.downstream_run import DownstreamRun
from mae.downstream.labelled_data import choose_by_data, describe_splits, require_one_device
from mae.downstream.starting_weights import build_encoder, read_starting_checkpoint
from mae.downstream.sweep import Sweep, candidates_of
from mae.downstream.sweep_run import SweepRun
from mae.downstream.tasks.registry import create_task
from mae.run.builders import build_optimization
from mae.run.run import Run, show_start
from mae.run.setting import Setting, open_setting
from mae.training.callbacks.checkpointing import Start
from mae.training.devices import prepare_model
from mae.training.summary import Rows, model_rows, optimization_rows


def prepare_training(config: FinetuneConfig, overrides: Sequence[str] = ()) -> DownstreamRun:
    """Check everything and build every part, before any work starts.

    Raises:
        ValueError: A value is wrong, or things do not fit each other.
        FileNotFoundError: A folder or checkpoint does not exist.
        ImportError: An extra is needed and not installed.
    """
    if _sweeps(config.protocol):
        require_one_device(config, "protocol.sweep=true")
    setting = open_setting(config, "finetune", overrides)
    config, task = setting.config, create_task(setting.config)
    checkpoint = read_starting_checkpoint(config)
    labelled = task.open(setting)
    look = choose_by_data(setting, labelled, checkpoint)
    check_classes(setting, labelled.classes)

    encoder, report = build_encoder(config, checkpoint)
    task.choose(setting, encoder, look.count, len(labelled.splits.val), pretrained=checkpoint is not None)
    if isinstance(config.protocol, Tuning):
        choose_layer_decay(setting.choices, encoder.depth, encoder.width)
    task.check_batches(setting, encoder, look.count)
    model = task.build_model(encoder, len(labelled.classes))
    options = config.trainer
    prepare_model(
        model,
        accelerator=options.accelerator,
        compile=options.compile,
        grad_checkpointing=options.grad_checkpointing,
    )
    data = task.build_data(setting, labelled.splits, encoder)
    decay = config.protocol.layer_decay if isinstance(config.protocol, Tuning) else 1.0
    head_rate = config.protocol.head_rate if isinstance(config.protocol, Finetune) else 1.0
    optimization = build_optimization(setting, encoder, data.steps_per_epoch, decay, head_rate)
    module = task.build_module(model, labelled.classes, optimization)
    sweep = Sweep(candidates_of(config, encoder), optimization) if _sweeps(config.protocol) else None
    averaging = _averaging(config.protocol)
    solved = isinstance(config.protocol, Finetune) and config.protocol.head_start == "solved"
    kept = [Start(setting.folder.path / "checkpoints")] if solved else []
    trainer, progress = Run.build_trainer(setting, optimization.total_steps, task.monitored, "max", [*averaging, *kept])

    start = "random, and frozen: a baseline" if config.protocol.probes else "random"
    rows: Rows = [
        ("data", describe_splits(f"{look}, {labelled.described}", labelled.splits)),
        ("weights", str(report) if report else start),
        *model_rows(encoder, model),
        *optimization_rows(optimization, model, config.optim.base_lr, config.batch_size, setting.micro_batch),
        *task.rows(module),
        *_warnings(config.protocol, optimization.total_steps),
    ]
    if sweep is not None:
        rows.append(("sweep", f"{len(sweep.candidates)} probes side by side, on features extracted once"))
    show_start(setting, trainer, config.protocol.name, rows)
    parts = setting, data, module, trainer, progress, task, averaging, checkpoint is not None, prepare_training
    return DownstreamRun(*parts) if sweep is None else SweepRun(*parts, sweep)


def _sweeps(protocol: Protocol) -> bool:
    return isinstance(protocol, LinearProbe) and protocol.sweep


def _averaging(protocol: Protocol) -> list[Callback]:
    if not (isinstance(protocol, Finetune) and protocol.ema):
        return []
    # Not Lightning's EMAWeightAveraging, whose sum of two products moves frozen weights by rounding; this one interpolates.
    return [WeightAveraging(multi_avg_fn=get_ema_multi_avg_fn(protocol.ema))]  # type: ignore[no-untyped-call]


def _warnings(protocol: Protocol, steps: int) -> Rows:
    if not (isinstance(protocol, Finetune) and protocol.ema and 1 / (1 - protocol.ema) > steps / 2):
        return []
    remembered = f"protocol.ema={protocol.ema} remembers {round(1 / (1 - protocol.ema)):,} steps"
    return [("warning", f"{remembered}, too many for a run this short")]


def check_classes(setting: Setting[FinetuneConfig], classes: Sequence[str]) -> None:
    """Raise a ValueError where the run that is to go on has a head of other classes."""
    path = setting.folder.last_checkpoint
    if path is None:
        return
    stored = setting.folder.header["hyper_parameters"]["classes"]
    if list(classes) != list(stored):
        other = sorted(set(classes) ^ set(stored))
        raise ValueError(
            f"the head in {path} has {len(stored)} classes, and data={setting.config.data.source} now has {len(classes)}; "
            f"{other[0]!r} is in one of them alone: resume on the data that the run was started with, or start a new run"
        )
