"""Which of timm's names a masked autoencoder can be pretrained with: docs/models.md, from building every one without memory.

    python benchmarks/which_vits.py [docs/models.md]

A name works where its encoder is built at its own image size and turns a quarter of the patches into tokens. Of those that do not,
the reason stands beside them, as a run would say it.
"""

from __future__ import annotations

import sys
import warnings
from collections import defaultdict
from pathlib import Path

import timm
import torch
from rich.progress import track

from mae.masking.plan import MaskPlan
from mae.models.backbones.backbone import PatchBackbone
from mae.models.backbones.create_backbone import create_backbone
from mae.models.backbones.timm_models import meta_model

MODULES = (
    "vision_transformer",
    "eva",
    "vision_transformer_hybrid",
    "vision_transformer_relpos",
    "vision_transformer_sam",
    "beit",
    "deit",
    "hiera",
    "naflexvit",
    "cait",
    "xcit",
    "volo",
)
"""Modules of timm that hold ViTs in the wide sense; convolutional networks and windowed ones cannot drop patches at all."""


def refusal(name: str) -> str:
    """Return why a name does not work; empty where it does."""
    try:
        _, height, width = meta_model(name).pretrained_cfg["input_size"]
        with torch.device("meta"):
            encoder = create_backbone(name, (height, width), masked=True)
            assert isinstance(encoder, PatchBackbone)
            patches = encoder.grid[0] * encoder.grid[1]
            plan = MaskPlan.from_noise(torch.rand(1, patches), encoder.grid, 0.75)
            tokens = encoder(torch.zeros(1, 3, height, width), plan)
    except (ValueError, RuntimeError) as error:
        return str(error).partition("\n")[0]
    assert tokens.shape == (1, encoder.num_prefix_tokens + plan.keep.shape[1], encoder.width)
    return ""


def survey() -> dict[str, dict[str, str]]:
    """Return by module the names, and why each does not work."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    names = [(module, name) for module in MODULES for name in timm.list_models(module=module)]
    for module, name in track(names, description="building"):
        found[module][name] = refusal(name)
    return dict(found)


def page(found: dict[str, dict[str, str]]) -> str:
    """Return the table and the lists as markdown."""
    lines = [
        "# Which of timm's models can be pretrained",
        "",
        f"Made by `python benchmarks/which_vits.py`, from timm {timm.__version__}: every name is built without memory and given a",
        "quarter of its patches. `model.name=NAME` takes those that work, at any image size that the patch divides.",
        "",
        "| timm's module | names | work |",
        "|---|---:|---:|",
    ]
    for module, names in found.items():
        lines.append(f"| `{module}` | {len(names)} | {sum(not why for why in names.values())} |")
    for module, names in found.items():
        lines += ["", f"## {module}", ""]
        working = [f"`{name}`" for name, why in names.items() if not why]
        if working:
            lines += [", ".join(working), ""]
        reasons: dict[str, list[str]] = defaultdict(list)
        for name, why in names.items():
            if why:
                reasons[why.replace(f"model.name={name!r}", "it").replace(name, "it")].append(f"`{name}`")
        lines += [f"- Not {', '.join(refused)}: {why}" for why, refused in reasons.items()]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    text = page(survey())
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text, encoding="utf-8")
    else:
        print(text)
