"""The groups ``protocol`` and ``task``: what a second stage learns, and how much of the encoder with it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mae.config.schema.fields import Chosen, Group, key

Pool = Literal["mean", "token", "tokens"]
AUGMENTATION = "the number of labelled images and epochs"
START = "whether the encoder is pretrained"


class Protocol(Group):
    """What every protocol says.

    Attributes:
        probes: Whether it leaves the encoder as it is.
        trains: Whether anything is trained by gradients.
    """

    probes: ClassVar[bool] = False
    trains: ClassVar[bool] = True

    name: str


class Probe(Protocol):
    """A head on a frozen encoder."""

    probes: ClassVar[bool] = True

    batch_norm: bool = key("a BatchNorm before the last layer, without affine parameters, eps 1e-6")
    head_std: float = key("deviation of the last layer's weights at the start", least=0)


class LinearProbe(Probe):
    """A linear classifier on frozen features (He et al. 2021, appendix A.1)."""

    name: Literal["linear_probe"] = key("the option of protocol=")
    pool: Pool = key(
        "mean of the patch tokens, or the class token (of several their mean), or tokens for all class tokens side by side"
    )
    sweep: bool = key("on features extracted once, a head for each pooling, norm and learning rate; validation chooses")
    sweep_factors: list[float] = key("times optim.base_lr, of a sweep")


class MlpProbe(Probe):
    """A classifier of two layers on frozen features."""

    name: Literal["mlp_probe"] = key("the option of protocol=")
    pool: Pool = key(
        "mean of the patch tokens, or the class token (of several their mean), or tokens for all class tokens side by side"
    )
    hidden: int | None = key("width of the hidden layer; null takes the encoder's", least=1)
    activation: Literal["relu", "gelu", "tanh"] = key("of the hidden layer", default="gelu")


class AttentiveProbe(Probe):
    """A learned query attends to all frozen tokens, then a linear classifier (Chen et al. 2022, arXiv 2202.03026)."""

    name: Literal["attentive_probe"] = key("the option of protocol=")
    heads: int | None = key("attention heads of the query; null takes the encoder's", least=1)
    mlp_ratio: float = key("hidden width of the MLP behind the attention, over the encoder's", least=0.1)


class Tuning(Protocol):
    """The encoder learns, its early layers more slowly."""

    layer_decay: Chosen[float] = key(
        "factor on the learning rate from each layer to the one before it",
        chosen_by="the depth of the encoder",
        above=0,
        most=1,
    )
    drop_path: float = key("stochastic depth at the last block, rising from 0", least=0, below=1)


class Finetune(Tuning):
    """Every layer learns (He et al. 2021, appendix A.1)."""

    name: Literal["finetune"] = key("the option of protocol=")
    pool: Pool = key(
        "mean of the patch tokens, then the norm; token or tokens: the class token, or all of them side by side, normalised before"
    )
    head: Literal["linear", "mlp"] = key("mlp puts a hidden layer before the last one", default="linear")
    hidden: int | None = key("width of the hidden layer; null takes the encoder's", least=1, default=None)
    activation: Literal["relu", "gelu", "tanh"] = key("of the hidden layer", default="gelu")
    head_std: float = key("deviation of the last layer's weights at the start; 0 is the ViT paper's", least=0)
    head_start: Chosen[Literal["solved", "random"]] = key(
        "solved: a linear head begins as a logistic regression on the features (LP-FT, Kumar et al. 2022, arXiv 2202.10054); "
        "random, as a head of two layers always does: at head_std",
        chosen_by=START,
        default="random",
    )
    head_norm: Chosen[Literal["batch", "fixed", "none"]] = key(
        "how features are standardised in front of the head: batch by a BatchNorm without affine parameters, fixed by the "
        "statistics of the features before training",
        chosen_by=START,
        default="none",
    )
    head_rate: Chosen[float] = key(
        "factor on the learning rate of the head", chosen_by=START, default=1.0, least=1, most=100
    )
    label_smoothing: float = key("share of the target that is spread over all classes", least=0, below=1)
    mixup: Chosen[float] = key("alpha of Mixup; the paper's is 0.8, 0 is off", chosen_by=AUGMENTATION, least=0)
    cutmix: Chosen[float] = key("alpha of CutMix; the paper's is 1.0, 0 is off", chosen_by=AUGMENTATION, least=0)
    rand_augment: Chosen[int] = key(
        "magnitude of RandAugment; the paper's is 9, 0 is off", chosen_by=AUGMENTATION, least=0, most=10
    )
    erasing: Chosen[float] = key(
        "probability of random erasing; the released recipe's is 0.25, 0 is off",
        chosen_by=AUGMENTATION,
        least=0,
        most=1,
    )
    ema: float = key(
        "decay of a running average of the weights, which is validated, tested and kept; 0 is off", least=0, below=1
    )


class PartialFinetune(Finetune):
    """The last blocks learn, and what comes before them stays frozen (He et al. 2021, figure 9)."""

    name: Literal["partial_finetune"] = key("the option of protocol=")  # type: ignore[assignment]
    blocks: float = key("of the last blocks; 0.5 is the MLP of the last one", least=0)


class Dense(Tuning):
    """Dense prediction: neck and head learn, and the encoder with them."""

    name: Literal["dense"] = key("the option of protocol=")
    frozen: bool = key("leave the encoder as it is")


class Features(Protocol):
    """Nothing is trained but logistic regressions: kNN, few-shot curves, clustering and retrieval on frozen features."""

    trains: ClassVar[bool] = False

    name: Literal["features"] = key("the option of protocol=")
    pool: Pool = key(
        "mean of the patch tokens, or the class token (of several their mean), or tokens for all class tokens side by side"
    )
    draws: int = key("of the labels, for each point of the few-shot curves", least=1)
    whiten: bool = key(
        "whiten what kNN, clusters and retrieval compare; false leaves features as they are", default=True
    )


AnyProtocol = Annotated[
    LinearProbe | MlpProbe | AttentiveProbe | Finetune | PartialFinetune | Dense | Features,
    Field(discriminator="name"),
]


class Classification(Group):
    """One class for each image."""

    name: Literal["classification"] = key("what is predicted", default="classification")


class Segmentation(Group):
    """A class for each pixel."""

    name: Literal["segmentation"] = key("the option of task=")
    neck: Literal["fpn", "vt_fpn", "simple"] | None = key(
        "fpn or vt_fpn for a network with several maps, simple for a ViT; null takes what fits"
    )
    neck_width: int = key("channels of each map behind the neck", least=1)
    width: int = key("channels of the head", least=1)
    tokens: int = key("visual tokens of vt_fpn, from each map", least=1)
    token_width: int = key("their channels", least=1)


AnyTask = Annotated[Classification | Segmentation, Field(discriminator="name")]
