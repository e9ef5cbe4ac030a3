"""How long the second stage takes, in which steps, how fast it learns, and how strongly images are changed."""

from __future__ import annotations

import math

from mae.config.choices import Choices, Machine, multiple, rounded
from mae.config.choosing.budget import VALIDATIONS, WIDE, multiply_adds_of
from mae.config.choosing.pretraining import choose_pace, warmup
from mae.config.schema.protocols import Finetune
from mae.config.schema.roots import FinetuneConfig
from mae.data.reading.augment import can_augment

PAPER_PROBE_BASE_LR = 0.1
TUNED = ("partial_finetune", "finetune")
MANY_LABELS = 10_000
FEW_LABELS = 1000
FEW_BATCH = 16
"""Images a step, at least, of a fine-tuning: where labels are few, or time is, many small steps teach more than few large ones."""
MANY_STEPS = 2000
"""Of a fine-tuning, beyond which batches grow."""
LEAST_STEPS = 400
"""Of a fine-tuning in all: 200 epochs of 10 images would be 200."""
TUNING_MINUTES = 3
"""Of a fine-tuning on two CPU cores, where epochs are not given."""
VALIDATING = 0.3
"""Validations of a fine-tuning, as a share of the time that it trains, about: of 50 labelled images beside 5,000 of validation they
would be most."""
FEWEST_VALIDATIONS = 5
"""Of a fine-tuning, whatever they take."""
PAPER_WIDTH = 768
"""From which on an encoder is fine-tuned at the paper's rates: narrower ones are pretrained for less, and have more to learn."""
FIRST_LAYER = 0.5
"""Learning rate of the embeddings of a smaller one, as a share of the last layer's."""
TUNING_RATE = {False: 1e-3, True: 2e-3}
"""Peak learning rate of AdamW, the higher for models narrower than ``WIDE``."""
TUNING_WARMUP = 0.2
"""Of a fine-tuning from a solved head, as a share of its epochs: what has been solved for is not to be lost in the first steps."""
MOST_EPOCHS = 200
"""Of a fine-tuning, where the budget would pay for more."""
PRETRAINED_HEAD = {"head_start": "solved", "head_norm": "batch", "head_rate": 1.0}
SCRATCH_HEAD = {"head_start": "random", "head_norm": "batch", "head_rate": 10.0}
"""Features at random are not worth solving for: they change at once. A head at random has far to go, on any features."""


def choose_finetuning(
    choices: Choices[FinetuneConfig],
    count: int,
    machine: Machine,
    shares: int = 1,
    *,
    cost: float = 0.0,
    width: int = WIDE,
    validated: int = 0,
) -> None:
    """Choose batch size, epochs, learning rate and augmentation.

    Args:
        choices: Of the run.
        count: Labelled images.
        machine: This one.
        shares: Divide the batch.
        cost: Multiply-adds of encoding an image, which the length of a fine-tuning on a CPU follows from.
        width: D of the encoder.
        validated: Images of the validation split, each a forward pass, a third of a training step.
    """
    config = choices.config
    if isinstance(config.protocol, Finetune):
        _choose_head(choices, config.protocol, alone=(config.batch_size or count) < 2 * shares)
    affordable = MOST_EPOCHS if machine.accelerated else _affordable(count, 3 * cost, width)
    batch = _choose_batch(choices, count, machine, shares, affordable)
    epochs = _choose_epochs(choices, count, machine, affordable)
    if config.optim.name == "lars":
        _choose_lars_rate(choices, count, epochs)
    else:
        _choose_rate(choices, batch, width)
    if choices.get("protocol.head_start") == "solved":
        reason = "a fifth of the run: the head is solved already"
        choices.fill("optim.warmup_epochs", tuning_warmup(epochs), reason)
    if config.protocol.name in TUNED:
        times = round(3 * VALIDATING * count * epochs / max(1, validated))
        choose_pace(choices, epochs, min(VALIDATIONS, max(FEWEST_VALIDATIONS, times)))
        _choose_augmentation(choices, count, epochs)
    else:
        choose_pace(choices, epochs)


def _choose_batch(
    choices: Choices[FinetuneConfig], count: int, machine: Machine, shares: int, affordable: float
) -> int:
    """Choose and return the batch size; ``affordable`` are the epochs that the budget pays for."""
    config = choices.config
    tuned = config.protocol.name in TUNED
    size = min(count, (1024 if machine.accelerated else 256) if count > 1024 else 64)
    reason = f"{count:,} labelled images"
    if tuned and (count < FEW_LABELS or not machine.accelerated):
        wanted = max(FEW_BATCH, min(256, int(count * (config.epochs or affordable)) // MANY_STEPS))
        size = count // max(1, round(count / wanted))  # few images are left over
        reason += f", and up to {MANY_STEPS:,} steps while batches are of {FEW_BATCH} or more"
    # Mixup and CutMix mix pairs of images, and a BatchNorm needs two.
    pairs = tuned and (count >= MANY_LABELS or choices.get("protocol.mixup") or choices.get("protocol.cutmix"))
    normalised = choices.get("protocol.head_norm") == "batch"
    unit = 2 * shares if (pairs or (normalised and size < 2 * shares)) and count >= 2 * shares else shares
    return int(choices.fill("batch_size", multiple(size, unit), reason))


def _choose_epochs(choices: Choices[FinetuneConfig], count: int, machine: Machine, affordable: float) -> int:
    """Choose and return the epochs, for the batch size of the config."""
    config = choices.config
    linear, tuned = config.protocol.name == "linear_probe", config.protocol.name in TUNED
    steps = max(1, count // config.batch_size)
    if tuned and affordable * steps < LEAST_STEPS:
        epochs, reason = math.ceil(LEAST_STEPS / steps), f"{LEAST_STEPS} steps, of {count:,} labelled images"
    elif tuned and not machine.accelerated:
        epochs = max(1, round(affordable))
        reason = f"about {TUNING_MINUTES} minutes on two cores, {MOST_EPOCHS} at most"
    elif count < FEW_LABELS:
        epochs, reason = 300 if linear else 200, "few labels make short epochs"
    elif machine.accelerated:
        epochs, reason = (90, "the paper's") if linear else (rounded(20e6 / count, 50, 100), "the papers' 50 to 100")
    else:
        most = 90 if linear else 100
        epochs = rounded(0.25e6 / count, 10, most)
        reason = f"a quarter million images seen on a CPU, within 10 to {most} epochs"
    return int(choices.fill("epochs", epochs, reason))


def _choose_rate(choices: Choices[FinetuneConfig], batch: int, width: int) -> None:
    """Choose base_lr for AdamW or SGD."""
    config = choices.config
    name, optimizer = config.protocol.name, config.optim.name
    if name in TUNED and optimizer == "adamw":
        peak = tuning_rate(width, scratch=config.checkpoint is None)
    else:
        peak = {"adamw": 2e-2 if name == "linear_probe" else 1e-3, "sgd": 0.1}.get(optimizer, 1e-3)
    choices.fill("optim.base_lr", base_rate(peak, batch), f"a rate of {peak:g} for {name} with {optimizer}")


def tuning_rate(width: int, *, scratch: bool) -> float:
    """Return the peak learning rate of AdamW for an encoder of this width, pretrained or from scratch."""
    return TUNING_RATE[False] if scratch else TUNING_RATE[width < WIDE]


def tuning_warmup(epochs: int) -> float:
    """Return the epochs in which a fine-tuning from a solved head warms up."""
    return round(epochs * TUNING_WARMUP, 3)


def base_rate(peak: float, batch: int) -> float:
    """Return the base_lr that gives this peak at this batch size, to two digits."""
    return float(f"{peak * 256 / batch:.2g}")


def _affordable(count: int, cost: float, width: int) -> float:
    """Return how many epochs of a fine-tuning on a CPU the budget pays for, ``MOST_EPOCHS`` at most."""
    return min(MOST_EPOCHS, multiply_adds_of(TUNING_MINUTES, width) / max(1.0, cost * count))


def choose_layer_decay(choices: Choices[FinetuneConfig], depth: int, width: int) -> None:
    """Choose how much slower than the next each layer learns.

    Args:
        choices: Of the run.
        depth: Layers that can be told apart; 0 where there are none.
        width: D.
    """
    if not depth:
        reason = "no layers to tell apart"
    elif choices.config.checkpoint is None:
        reason = "from scratch all layers have as far to go"
    elif width >= PAPER_WIDTH:
        reason = "the paper's"
    else:
        reason = f"the embeddings learn at {FIRST_LAYER:g} of the rate of the last layer"
    decay = layer_decay(depth, width, scratch=choices.config.checkpoint is None)
    choices.fill("protocol.layer_decay", decay, reason)


def layer_decay(depth: int, width: int, *, scratch: bool) -> float:
    """Return the factor between the learning rates of a layer and the next, see ``choose_layer_decay``."""
    if not depth or scratch:
        return 1.0
    return 0.75 if width >= PAPER_WIDTH else round(float(FIRST_LAYER ** (1 / (depth + 1))), 3)


def _choose_head(choices: Choices[FinetuneConfig], protocol: Finetune, alone: bool) -> None:
    """Choose how the head starts, what stands before it, and how fast it learns; ``alone`` is an image on its device."""
    scratch = choices.config.checkpoint is None
    if protocol.head == "mlp":
        choices.fill("protocol.head_start", "random", "a head of two layers is not solved for")
    if alone:
        choices.fill("protocol.head_norm", "none", "a BatchNorm needs two images on a device")
    reason = "the features start at random" if scratch else "the features are pretrained"
    start = choices.fill("protocol.head_start", "random" if scratch else "solved", reason)
    chosen = PRETRAINED_HEAD if start == "solved" else SCRATCH_HEAD
    choices.fill("protocol.head_norm", chosen["head_norm"], "all directions of the features on one scale")
    choices.fill("protocol.head_rate", chosen["head_rate"], f"the head starts {start}")


def from_scratch(config: FinetuneConfig, depth: int, width: int) -> FinetuneConfig:
    """Return the config of the same run as it is fair to the same network from scratch.

    A solved head is what features worth it begin with, and layers that are all at random have as far to go: head, rate, warm-up
    and layer decay become those that a run from scratch chooses, each where it has the value that a pretrained one chooses.
    Batches, epochs and augmentation stay, and so does what stands before the head: a BatchNorm may be none because a device sees
    one image at a time.

    Args:
        config: Of the run from a checkpoint, complete.
        depth: Of the encoder.
        width: D.
    """
    config = config.model_copy(deep=True, update={"checkpoint": None})
    protocol, optim = config.protocol, config.optim
    if not isinstance(protocol, Finetune):
        return config
    if protocol.head_start == "solved":
        kept = {"head_norm"} | ({"head_rate"} if protocol.head_rate != PRETRAINED_HEAD["head_rate"] else set())
        head = {key: value for key, value in SCRATCH_HEAD.items() if key not in kept}
        protocol = config.protocol = protocol.model_copy(update=head)
    if protocol.layer_decay == layer_decay(depth, width, scratch=False):
        protocol.layer_decay = layer_decay(depth, width, scratch=True)
    assert config.epochs is not None and config.batch_size is not None, "complete"
    if optim.name == "adamw" and optim.base_lr == base_rate(tuning_rate(width, scratch=False), config.batch_size):
        optim.base_lr = base_rate(tuning_rate(width, scratch=True), config.batch_size)
    if optim.warmup_epochs == tuning_warmup(config.epochs):
        optim.warmup_epochs = warmup(config.epochs)
    return config


def choose_baselines(choices: Choices[FinetuneConfig], count: int, machine: Machine) -> None:
    """Choose whether the run also trains from random weights: always for a probe, and where it costs little otherwise."""
    config = choices.config
    images = count * config.epochs
    if config.protocol.probes:
        choices.fill("baselines", True, "a number alone means little")
    elif images <= (5e6 if machine.accelerated else 0.5e6):
        choices.fill("baselines", True, "a number alone means little, and this one is quick to have beside")
    else:
        choices.fill(
            "baselines", False, "it would double a long run; baselines=true does, or checkpoint=null by itself"
        )


LARS_REACH = 2500
"""Sum of the learning rates of all steps, warm-up and cosine not counted, that a linear probe needs under LARS."""
LARS_MOST = 20
"""Greatest learning rate that is chosen for it: with momentum 0.9 a step of 20% of the weights."""


def _choose_lars_rate(choices: Choices[FinetuneConfig], count: int, epochs: int) -> None:
    """Choose base_lr for LARS: the paper's, or more where a small data set leaves few steps.

    A step of LARS changes a weight by a share of its norm (0.001 times the rate), whatever the gradient. So steps x rate, which
    is epochs x images x base_lr / 256 for every batch size, says how far the weights can go: 45,000 for the paper's 90 epochs
    of ImageNet, 45 for 1,293 digits, where base_lr 0.1 leaves them far from trained. Accuracy is flat from about 1,000 to 20,000.
    """
    reach = epochs * count * PAPER_PROBE_BASE_LR / 256
    if reach >= LARS_REACH:
        choices.fill("optim.base_lr", PAPER_PROBE_BASE_LR, "the paper's")
    else:
        most = LARS_MOST * 256 / choices.config.batch_size
        rate = float(f"{min(most, LARS_REACH * 256 / (epochs * count)):.2g}")
        choices.fill(
            "optim.base_lr", rate, f"the paper's {PAPER_PROBE_BASE_LR} needs more steps than these images give"
        )


AUGMENTATIONS = {"mixup": 0.8, "cutmix": 1.0, "rand_augment": 9, "erasing": 0.25}


def _choose_augmentation(choices: Choices[FinetuneConfig], count: int, epochs: int) -> None:
    """Choose how strongly training images are changed: as in the paper, or not at all."""
    strong = count >= MANY_LABELS and epochs >= 50
    reason = "the paper's" if strong else "few images or a short run, which strong augmentation would slow down"
    if not can_augment(choices.get("data.channels") or 3, choices.get("data.bits") or 8):
        choices.fill("protocol.rand_augment", 0, "it knows grey and colour images of 8 bits alone")
    for key, value in AUGMENTATIONS.items():
        choices.fill(f"protocol.{key}", value if strong else 0, reason)
