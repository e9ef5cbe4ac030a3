"""Which model fits the images and the machine, and which decoder fits the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mae.config.choices import Choice, Choices, Machine
from mae.config.schema.roots import PretrainConfig
from mae.data.inspection import Inspection


def preset_for(side: int, count: int, machine: Machine) -> tuple[str, int, str]:
    """Return (model preset, image size, reason) for images of this short side in pixels."""
    if side < 24:
        return "digits", 16, f"images of {side} px"
    if side < 32:
        return "small_28", 28, f"images of {side} px"
    if side < 48:
        return "small_32", 32, f"images of {side} px"
    if side < 112:
        return "small_64", 64, f"images of {side} px"
    if not machine.accelerated:
        return "tiny", 224, f"photographs of {side} px, without an accelerator"
    if count < 100_000:
        return "small", 224, f"{count:,} photographs of {side} px: fewer than 100,000 do not fill a larger model"
    return "base", 224, f"{count:,} photographs of {side} px"


def choose_images_and_model(
    choices: Choices[Any], look: Inspection, machine: Machine, load_preset: Callable[[str], Mapping[str, Any]]
) -> None:
    """Choose image size, channels, model, and in pretraining the decoder's sizes."""
    config = choices.config
    given = config.data.image_size
    side = look.short_side if given is None else (given if isinstance(given, int) else min(given))
    preset, size, reason = preset_for(side, look.count, machine)
    choices.fill("data.image_size", size, reason)
    seen = {1: "every image looked at is grey", 3: "colour among the images looked at"}
    choices.fill("data.channels", look.channels, seen.get(look.channels, "what the images hold"))
    if config.model.title is None:
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
        return 64, 2, 4
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
