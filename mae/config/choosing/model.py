"""Which model fits the images and the machine, and which decoder fits the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mae.config.choices import Choice, Choices, Machine
from mae.config.schema.roots import PretrainConfig
from mae.data.inspection import Inspection

SIZES = ((24, 16), (32, 28), (48, 32), (112, 64))
"""Images of fewer pixels than the first are seen at the second."""
PHOTOGRAPH = 224
"""Size at which larger ones are seen; the paper's."""
SMALL_PHOTOGRAPH = 128
"""The same by a model that is chosen for a CPU: 64 patches of 16 pixels, not 196."""


def preset_for(side: int, count: int, machine: Machine) -> tuple[str, str]:
    """Return (model preset, reason) for images of this short side in pixels."""
    size = size_for(side, small=not machine.accelerated)
    if size == 16:
        return "digits", f"images of {side} px"
    if not machine.accelerated:
        return (
            f"micro_{size}",
            f"images of {side} px, without an accelerator, where a larger one learns little in minutes",
        )
    if size < PHOTOGRAPH:
        return f"small_{size}", f"images of {side} px"
    if count < 100_000:
        return "small", f"{count:,} photographs of {side} px: fewer than 100,000 do not fill a larger model"
    return "base", f"{count:,} photographs of {side} px"


def size_for(side: int, *, small: bool) -> int:
    """Return the size in pixels at which images of this short side are seen, photographs smaller by a ``small`` model."""
    return next((size for limit, size in SIZES if side < limit), SMALL_PHOTOGRAPH if small else PHOTOGRAPH)


def choose_images_and_model(
    choices: Choices[Any], look: Inspection, machine: Machine, load_preset: Callable[[str], Mapping[str, Any]]
) -> None:
    """Choose image size, channels, model, and in pretraining the decoder's sizes."""
    config = choices.config
    given = config.data.image_size
    side = look.short_side if given is None else (given if isinstance(given, int) else min(given))
    preset, reason = preset_for(side, look.count, machine)
    own = config.model.title is None
    small = own and config.model.get("patch_size") is None and not machine.accelerated
    choices.fill("data.image_size", size_for(side, small=small), f"images of {side} px")
    seen = {1: "every image looked at is grey", 3: "colour among the images looked at"}
    choices.fill("data.channels", look.channels, seen.get(look.channels, "what the images hold"))
    if own:
        choices.made.append(Choice("model", preset, reason))
        for key, value in load_preset(preset).items():
            if getattr(config.model, key, None) is None:
                setattr(config.model, key, value)
    if isinstance(config, PretrainConfig):
        choose_decoder(choices)


def decoder_sizes(width: int) -> tuple[int, int, int]:
    """Return the decoder's (width, depth, heads) for an encoder of this width."""
    if width >= 768:
        return 512, 8, 16
    if width <= 128:
        return 64, 2 if width <= 96 else 1, 4
    own = {384: (256, 8, 8), 192: (192, 4, 3)}
    heads = max(1, round(width / 64))
    return own.get(width, (32 * heads, 4, heads))


def choose_decoder(choices: Choices[PretrainConfig]) -> None:
    """Choose those sizes of the decoder that it has, and that are null."""
    config = choices.config
    open_sizes = [
        key for key in ("width", "depth", "heads") if key in config.decoder.options and config.decoder.get(key) is None
    ]
    if not open_sizes:
        return
    width = encoder_width(config)
    sizes = dict(zip(("width", "depth", "heads"), decoder_sizes(width), strict=True))
    reason = f"the paper's, for an encoder {width} wide" if width >= 768 else f"light, for an encoder {width} wide"
    for key in open_sizes:
        choices.fill(f"decoder.{key}", sizes[key], reason)


def encoder_width(config: PretrainConfig) -> int:
    """Return the width of the encoder of a config; of a class that is not timm's and does not say, a ViT-Tiny's.

    Raises:
        ValueError: Nobody knows the model.
    """
    from mae.models.backbones.create_backbone import BACKBONES  # timm is not needed where all sizes are given
    from mae.models.backbones.timm_models import meta_model

    given, name = config.model.get("width"), config.model.name
    if given is None and config.model.class_path is None and name is not None and name not in BACKBONES:
        given = getattr(meta_model(name), "num_features", None)
    return int(given or 192)
