"""The groups that say how a run trains: ``optim``, ``trainer``, ``callbacks``, ``logger``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mae.config.schema.fields import Chosen, Group, key

NUMBERS = "the number of images and epochs"
MEASURED = "callbacks.share, the length of the run and the model"


class Optim(Group):
    """How the parameters move."""

    name: Literal["adamw", "sgd", "lars"] = key("the optimizer")
    base_lr: Chosen[float] = key(
        "lr = base_lr * batch_size / 256", chosen_by="protocol, batch and number of images", least=0
    )
    weight_decay: float = key("of matrices; biases, norms and tokens have none", least=0)
    betas: Annotated[list[float], Field(min_length=2, max_length=2)] = key("of adamw")
    momentum: float = key("of sgd and lars", least=0)
    warmup_epochs: Chosen[float] = key("the rate rises linearly for so long", chosen_by=NUMBERS, least=0)
    final_lr: float = key("at the end, as a share of the peak; 1 keeps the rate constant", least=0)
    schedule: Literal["cosine", "steps"] = key(
        "cosine, or steps: a tenth of the rate after every step_epochs", default="cosine"
    )
    step_epochs: float = key("epochs between the falls of schedule=steps", least=0.001, default=30)
    clip_norm: float | None = key("largest norm of the gradient; null clips none", above=0)


class Trainer(Group):
    """What changes how fast a run is, and not what it computes but for rounding."""

    accelerator: str = key("auto, cpu, gpu, mps: what the run is computed on")
    devices: int | str | list[int] = key("how many on each node, or which; auto takes all")
    num_nodes: int = key("machines", least=1)
    strategy: str = key("auto, or one of Lightning's, such as ddp")
    precision: str = key("auto, 32-true, bf16-mixed or 16-mixed; auto takes bf16 where the device computes it")
    accumulate: int = key("forward passes per optimizer step; batch_size keeps its meaning", least=1)
    grad_checkpointing: bool = key("compute blocks again on the way back: less memory, a third slower")
    compile: bool = key("torch.compile the model")
    validate_every: Chosen[int] = key("epochs", chosen_by=NUMBERS, least=1)
    save_minutes: float = key(
        "between checkpoints; each epoch and a stopped run end with one, too", least=0, default=15
    )
    progress: bool = key("show a summary, a bar and the results")


class Callbacks(Group):
    """What is measured and drawn beside pretraining."""

    pictures: int = key("validation images in each picture; 0 draws none", least=0)
    picture_times: int = key("pictures in a run", least=0)
    knn: bool = key("kNN accuracy on whitened frozen features, where the data have labels")
    probe: bool = key(
        "accuracy of a linear probe on frozen features, solved and not trained, where the data have labels"
    )
    rank: bool = key("RankMe and spread of the features; they need no labels")
    share: float = key(
        "of the training's cost that kNN, probe and RankMe may add, about; what follows is chosen by it",
        least=0,
        default=0.03,
    )
    knn_times: Chosen[int] = key(
        "measurements while training, at most; the start and the end are measured in any case",
        chosen_by=MEASURED,
        least=0,
    )
    knn_bank: Chosen[int] = key(
        "training images that vote and that the probe learns from, at most", chosen_by=MEASURED, least=1
    )
    knn_queries: Chosen[int] = key("validation images that are measured, at most", chosen_by=MEASURED, least=1)


RETIRED = {
    "callbacks.probe_images": "the probe is solved on the images that kNN looks at, which callbacks.knn_bank bounds",
    "callbacks.probe_memory": "the probe keeps no images any more",
}
"""Keys of runs of earlier versions, and what to say of them; such a run goes on without them."""


class Debug(Group):
    """A short run of everything, or a look at where the time goes."""

    overfit: bool = key("train on the first batch alone, the same crops each step: the loss must fall", default=False)
    steps: int | None = key(
        "train so many steps, validate one batch, and end as a whole run does", least=1, default=None
    )
    profiler: bool = key("write a table of where the time goes to run_dir/profile.txt", default=False)


class CsvLogger(Group):
    """metrics.csv in the run folder."""

    name: Literal["csv"] = key("metrics.csv in the run folder")


class WandbLogger(Group):
    """Weights & Biases, beside metrics.csv."""

    name: Literal["wandb"] = key("Weights & Biases, beside metrics.csv")
    project: str = key("of Weights & Biases")
    run_name: str | None = key("null takes the run folder's")
    offline: bool = key("write to run_dir/wandb, for wandb sync")
    id: str | None = key(
        "of the run, kept in config.yaml so that a resume goes on with it; null draws one at the start"
    )


AnyLogger = Annotated[CsvLogger | WandbLogger, Field(discriminator="name")]
