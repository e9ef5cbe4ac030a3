"""The recipes of conf/experiment: what they say of themselves, and that they hold the published values."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mae.config.choices import Choices, Machine
from mae.config.choosing.finetuning import choose_baselines, choose_finetuning
from mae.config.choosing.images import choose_loading
from mae.config.choosing.model import choose_images_and_model
from mae.config.choosing.pretraining import choose_batch, choose_length
from mae.config.composing import compose, config_folder, load_preset
from mae.config.mistakes import Groups
from mae.config.reading import leaves
from mae.config.schema.roots import RunConfig
from mae.data.inspection import Inspection
from mae.downstream.tasks.segmentation import choose_segmentation
from mae.optim.schedule import scaled_lr
from tests.data.drawing import write_image
from tests.runs import ENCODER, job

PATHS = Groups([config_folder()]).files("experiment")
COMMAND = re.compile(r"^python train_(pretrain|finetune)\.py (\S+(?: \S+)*)")
IMAGENET_FILE = config_folder() / "experiment" / "_imagenet.yaml"
SIZES = ("base", "large", "huge")
PUBLISHED = [name for name in PATHS if name.startswith("mae_")] + ["cifar10", "cifar10_finetune"]
RELATED = ["crossmae_base_800", "pixio_huge"]


def header(name: str) -> list[str]:
    """Return the comment that a recipe opens with, line by line, without Hydra's own first line."""
    lines = PATHS[name].read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# @package _global_"
    opening = []
    for line in lines[1:]:
        if not line.startswith("#"):
            break
        opening.append(line.removeprefix("#").removeprefix(" "))
    return opening


def commands(name: str) -> list[tuple[str, list[str]]]:
    """Return (root, overrides) of every command in the opening comment; what follows two spaces is a remark."""
    found = (COMMAND.match(line.partition("  ")[0]) for line in header(name))
    return [(match[1], match[2].split()) for match in found if match]


def root(name: str) -> str:
    """Return the root that a recipe belongs to."""
    return commands(name)[0][0]


@functools.cache
def _composed(name: str) -> RunConfig:
    return compose(root(name), [f"experiment={name}"])


def composed(name: str) -> Any:
    """Return a recipe's config, to be changed at will: composing takes a tenth of a second."""
    return _composed(name).model_copy(deep=True)


def flat(name: str) -> dict[str, Any]:
    """Return a recipe's values by dotted keys."""
    return leaves(_composed(name).plain())


def recipes(stage: str) -> list[str]:
    return [name for name in PATHS if root(name) == stage]


def test_the_recipes_that_are_promised_are_there() -> None:
    wanted = {f"mae_{size}_{what}" for size in SIZES for what in ("800", "1600", "linear", "finetune")}
    wanted |= {"mae_large_partial", "digits", "digits_probe", "fashion_mnist", "fashion_mnist_finetune"}
    wanted |= {"cifar10", "cifar10_finetune", "cifar10_small"}
    wanted |= {"fashion_mnist_vit_d2l", "cifar10_vit_labml", "cifar10_patch_prediction", "cifar10_vt_resnet18"}
    wanted |= {"camvid_vt_fpn", "camvid_mae", *RELATED}
    assert set(PATHS) == wanted


@pytest.mark.parametrize("name", PATHS)
def test_a_recipe_opens_with_command_cost_result_and_source(name: str) -> None:
    lines = header(name)
    assert COMMAND.match(lines[0]), "the command comes first"
    order = [
        next(i for i, line in enumerate(lines) if line.startswith(word)) for word in ("Cost:", "Expect:", "Source:")
    ]
    assert order == sorted(order)
    for stage, overrides in commands(name):
        assert f"experiment={name}" in overrides
        assert stage == root(name)
        if overrides != [f"experiment={name}"]:
            assert compose(stage, overrides)  # which checks them


@pytest.mark.parametrize("name", PATHS)
def test_a_recipe_that_was_not_run_says_so(name: str) -> None:
    expected = " ".join(header(name)).partition("Expect:")[2].partition("Source:")[0]
    assert ("Not run here" in expected) == (name in PUBLISHED + RELATED)


@pytest.mark.parametrize("name", PATHS)
def test_a_recipe_names_only_recipes_that_exist(name: str) -> None:
    named = re.findall(r"experiment=(\w+)", " ".join(header(name)))
    assert set(named) <= set(PATHS)


IMAGENET = {
    "data.source": "image_folder",
    "data.image_size": 224,
    "data.channels": 3,
    "data.mean": [0.485, 0.456, 0.406],
    "data.std": [0.229, 0.224, 0.225],
    "data.flip": True,
    "optim.clip_norm": None,
}
ARCHITECTURE = {
    "base": {"model.patch_size": 16, "model.width": 768, "model.depth": 12, "model.heads": 12},
    "large": {"model.patch_size": 16, "model.width": 1024, "model.depth": 24, "model.heads": 16},
    "huge": {"model.patch_size": 14, "model.width": 1280, "model.depth": 32, "model.heads": 16},
}
PRETRAINING = {
    "batch_size": 4096,
    "optim.name": "adamw",
    "optim.base_lr": 1.5e-4,
    "optim.betas": [0.9, 0.95],
    "optim.weight_decay": 0.05,
    "optim.warmup_epochs": 40,
    "optim.final_lr": 0,
    "data.min_scale": 0.2,
    "masking.name": "random",
    "masking.ratio": 0.75,
    "objective.normalize": True,
    "model.positions": "sincos",
    "decoder.name": "self_attention",
    "decoder.width": 512,
    "decoder.depth": 8,
    "decoder.heads": 16,
}
LINEAR = {
    "epochs": 90,
    "batch_size": 16384,
    "optim.name": "lars",
    "optim.base_lr": 0.1,
    "optim.momentum": 0.9,
    "optim.weight_decay": 0,
    "optim.warmup_epochs": 10,
    "optim.final_lr": 0,
    "data.min_scale": 0.08,
    "protocol.name": "linear_probe",
    "protocol.pool": "token",
    "protocol.batch_norm": True,
    "protocol.head_std": 0.01,
    "protocol.sweep": False,
}
PLAIN_HEAD = {"protocol.head_start": "random", "protocol.head_norm": "none", "protocol.head_rate": 1}
FINETUNING = {
    "batch_size": 1024,
    "optim.name": "adamw",
    "optim.betas": [0.9, 0.999],
    "optim.weight_decay": 0.05,
    "optim.warmup_epochs": 5,
    "data.min_scale": 0.08,
    "protocol.name": "finetune",
    "protocol.pool": "mean",
    "protocol.head_std": 2e-5,
    **PLAIN_HEAD,
    "protocol.label_smoothing": 0.1,
    "protocol.mixup": 0.8,
    "protocol.cutmix": 1.0,
    "protocol.rand_augment": 9,
    "protocol.erasing": 0.25,
    "protocol.ema": 0,
}
OWN = {
    "base": {"epochs": 100, "optim.base_lr": 5e-4, "protocol.layer_decay": 0.65, "protocol.drop_path": 0.1},
    "large": {"epochs": 50, "optim.base_lr": 1e-3, "protocol.layer_decay": 0.75, "protocol.drop_path": 0.2},
    "huge": {"epochs": 50, "optim.base_lr": 1e-3, "protocol.layer_decay": 0.75, "protocol.drop_path": 0.3},
}
PARTIAL = {
    "epochs": 200,
    "optim.base_lr": 1e-3,
    "optim.final_lr": 0,
    "protocol.name": "partial_finetune",
    "protocol.blocks": 1,
    "protocol.pool": "token",
    "protocol.layer_decay": 0.75,
    "protocol.drop_path": 0.1,
    "protocol.erasing": 0,
}
CIFAR = {
    "data.image_size": 32,
    "data.channels": 3,
    "data.mean": [0.5, 0.5, 0.5],
    "data.std": [0.5, 0.5, 0.5],
    "data.min_scale": 1,
    "data.flip": False,
    "optim.name": "adamw",
    "optim.weight_decay": 0.05,
}
NOTHING = dict.fromkeys(("drop_path", "label_smoothing", "mixup", "cutmix", "rand_augment", "erasing", "ema"), 0)


def published() -> Iterator[tuple[str, dict[str, Any], float]]:
    """Yield (recipe, values, peak learning rate), all written by hand from the papers and the released documents."""
    for size in SIZES:
        for epochs in (800, 1600):
            values = IMAGENET | ARCHITECTURE[size] | PRETRAINING | {"epochs": epochs}
            yield f"mae_{size}_{epochs}", values, 2.4e-3
        yield f"mae_{size}_linear", IMAGENET | ARCHITECTURE[size] | LINEAR, 6.4
        yield (
            f"mae_{size}_finetune",
            IMAGENET | ARCHITECTURE[size] | FINETUNING | OWN[size],
            2e-3 if size == "base" else 4e-3,
        )
    yield "mae_large_partial", IMAGENET | ARCHITECTURE["large"] | FINETUNING | PARTIAL, 4e-3
    pretraining = {
        "epochs": 2000,
        "batch_size": 4096,
        "optim.betas": [0.9, 0.95],
        "optim.warmup_epochs": 200,
        "masking.ratio": 0.75,
        "objective.normalize": False,
        "model.patch_size": 2,
        "model.positions": "learned",
        "model.width": 192,
        "model.depth": 12,
        "model.heads": 3,
        "decoder.width": 192,
        "decoder.depth": 4,
        "decoder.heads": 3,
    }
    yield "cifar10", CIFAR | pretraining, 2.4e-3
    finetuning = {
        "epochs": 100,
        "batch_size": 128,
        "optim.betas": [0.9, 0.999],
        "optim.warmup_epochs": 5,
        "protocol.name": "finetune",
        "protocol.pool": "token",
        **PLAIN_HEAD,
        "protocol.layer_decay": 1,
        **{f"protocol.{key}": value for key, value in NOTHING.items()},
    }
    yield "cifar10_finetune", CIFAR | finetuning, 5e-4


@pytest.mark.parametrize(("name", "values", "peak"), list(published()), ids=[name for name, _, _ in published()])
def test_published_values_are_held(name: str, values: dict[str, Any], peak: float) -> None:
    values_of = flat(name)
    assert {key: values_of[key] for key in values} == values
    assert scaled_lr(values_of["optim.base_lr"], values_of["batch_size"]) == pytest.approx(peak)


def test_every_published_recipe_is_in_the_table() -> None:
    assert {name for name, _, _ in published()} == set(PUBLISHED)


@pytest.mark.parametrize("size", SIZES)
def test_fine_tuning_ends_at_the_released_learning_rate(size: str) -> None:
    # Absolute in the released code, where it is the same for every size; a share of the peak here.
    config = composed(f"mae_{size}_finetune")
    peak = scaled_lr(config.optim.base_lr, config.batch_size)
    assert peak * config.optim.final_lr == pytest.approx(1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_a_probe_and_a_fine_tuning_expect_the_encoder_that_pretraining_makes(size: str) -> None:
    # A model of another size is refused by these values; the name is left to the checkpoint, as released files bear none.
    pretrained = flat(f"mae_{size}_800")
    for name in (f"mae_{size}_linear", f"mae_{size}_finetune"):
        values_of = flat(name)
        assert values_of["model.name"] is None
        assert {key: pretrained[key] for key in ARCHITECTURE[size]} == {
            key: values_of[key] for key in ARCHITECTURE[size]
        }


# Chosen by the machine, or measured on the images: nothing of the recipe.
FLIP = {"data.flip"}  # what the images themselves say, and no rule of their numbers
MEASURED = {"callbacks.knn_bank", "callbacks.knn_queries", "callbacks.knn_times"}
"""On how many images a run is measured follows from its length, and changes nothing of it."""
OPEN = {"data.num_workers", "data.bits", "trainer.validate_every", *MEASURED}
SIGHTS = [
    (Inspection(count, channels, side, side, side, False), Machine(accelerated, 8))
    for count in (50, 5_500, 1_281_167)
    for channels, side in ((1, 8), (1, 28), (3, 32), (3, 400))
    for accelerated in (False, True)
]


@pytest.mark.parametrize("name", recipes("pretrain"))
def test_no_default_is_left_to_choose_in_pretraining(name: str) -> None:
    # Adding data.root, and nothing else, gives the same recipe whatever the images and the machine.
    for look, machine in SIGHTS:
        choices = Choices(composed(name))
        choose_images_and_model(choices, look, machine, load_preset)
        choose_loading(choices, look, machine, devices=1)
        choose_batch(choices, look.count, machine, cost=1e7)
        choose_length(choices, look.count, machine, cost=1e7)
        assert {choice.key for choice in choices.made} <= OPEN
    values_of = flat(name)
    unset = {key for key, value in values_of.items() if value is None}
    assert unset <= OPEN | {
        "run_dir",
        "minutes",
        "epoch_steps",
        "data.root",
        "data.index",
        "optim.clip_norm",
        "data.mean",
        "data.std",
        "debug.steps",
    }


@pytest.mark.parametrize("name", recipes("finetune"))
def test_no_default_is_left_to_choose_in_the_second_stage(name: str) -> None:
    for look, machine in SIGHTS:
        choices = Choices(composed(name))
        for key, value in (("image_size", 32), ("channels", look.channels)):
            choices.fill(f"data.{key}", value, "the checkpoint's")
        choices.made.clear()
        choose_loading(choices, look, machine, devices=1)
        if choices.get("task.name") == "segmentation":
            choose_segmentation(choices, look.count, machine, 1, pretrained=True)
        else:
            choose_finetuning(choices, look.count, machine)
            choose_baselines(choices, look.count, machine)
        assert {choice.key for choice in choices.made} <= OPEN


@pytest.mark.parametrize("name", recipes("finetune"))
def test_augmentation_stands_in_the_recipe_itself(name: str) -> None:
    # Read from the files: a value that a group happens to hold today is not the recipe's.
    text = PATHS[name].read_text(encoding="utf-8")
    for shared in re.findall(r"- /?(?:experiment/)?(_(?!self_)\w+(?:/\w+)?)", text):
        text += (config_folder() / "experiment" / f"{shared}.yaml").read_text(encoding="utf-8")
    text += IMAGENET_FILE.read_text(encoding="utf-8") if "_imagenet" in text else ""
    body = "\n".join(line.partition("#")[0] for line in text.splitlines())
    keys = ["min_scale", "flip"]
    if "tune" in composed(name).protocol.name:
        keys += ["drop_path", "label_smoothing", "override /augmentation", "head_start", "head_norm", "head_rate"]
    assert [key for key in keys if not re.search(rf"\b{key}:", body)] == []


def test_what_the_defaults_choose_was_written_down_rightly() -> None:
    # The recipe claims to be the defaults on a CPU.
    look, wanted = Inspection(1293, 1, 8, 8, 8, True), composed("digits")
    free = compose("pretrain", ["data=digits"])
    choices = Choices(free)
    machine = Machine(accelerated=False, cores=2)
    choose_images_and_model(choices, look, machine, load_preset)
    choose_loading(choices, look, machine, devices=1)
    choose_batch(choices, look.count, machine, cost=1.2e7)
    choose_length(choices, look.count, machine, cost=1.2e7)
    chosen = leaves(free.plain())
    written = {
        key: value for key, value in leaves(wanted.plain()).items() if value is not None and key not in OPEN | FLIP
    }
    assert written == {key: chosen[key] for key in written}


def test_what_the_defaults_choose_for_few_labels_was_written_down_rightly() -> None:
    wanted, labels = composed("digits_probe"), 50
    choices = Choices(compose("finetune", ["data=digits", "protocol=linear_probe", "data.channels=1"]))
    machine = Machine(accelerated=False, cores=2)
    choose_loading(choices, Inspection(labels, 1, 8, 8, 8, True), machine, devices=1)
    choose_finetuning(choices, labels, machine)
    choose_baselines(choices, labels, machine)
    flat = leaves(wanted.plain())
    chosen = {choice.key: choice.value for choice in choices.made if choice.key not in OPEN}
    assert {"optim.base_lr", "optim.warmup_epochs", "data.min_scale", "baselines"} <= set(chosen)
    assert {key: flat[key] for key in chosen} == pytest.approx(chosen)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw four pictures of two classes each, for training and validation."""
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(16):
        split, kind = ("train", "val")[number % 2], ("cat", "dog")[number // 2 % 2]
        write_image(folder / split / kind / f"{number}.png", 40, 50, seed=number)
    return folder


def prepared(name: str, folder: Path, data: Path, *overrides: str) -> Any:
    """Prepare a recipe for ImageNet on eight drawn pictures, with an encoder of one narrow block."""
    small = (*ENCODER, "batch_size=4", "data.num_workers=0", f"data.root={data}")
    return job(root(name), folder / "run", f"experiment={name}", *small, *overrides)


def test_a_pretraining_recipe_reaches_the_job(tmp_path: Path, photographs: Path) -> None:
    ready = prepared("mae_base_800", tmp_path, photographs)
    module, moves, crops = ready.module, ready.module.optimization, ready.data.train_transform
    assert (moves.name, moves.lr, moves.betas, moves.weight_decay) == ("adamw", scaled_lr(1.5e-4, 4), (0.9, 0.95), 0.05)
    assert (moves.warmup_steps, moves.final_lr) == (40 * 2, 0)  # eight pictures are two steps an epoch
    assert (crops.image_size, crops.min_scale, crops.flip, crops.augment) == ((224, 224), 0.2, True, None)
    assert module.model.normalize_pixels
    assert (module.sampler.ratio, module.model.grid) == (0.75, (14, 14))
    assert module.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert {choice.key for choice in ready.setting.choices.made} <= OPEN


def test_crossmae_s_recipe_reaches_the_job(tmp_path: Path, photographs: Path) -> None:
    ready = prepared("crossmae_base_800", tmp_path, photographs, "decoder.depth=1", "decoder.fuse=1")
    module, moves = ready.module, ready.module.optimization
    plan = module.sampler(2, (14, 14), torch.Generator().manual_seed(0))
    assert (plan.masked.shape[1], module.model.decoder.train().predicted(plan).shape[1]) == (147, 49)
    assert (moves.lr, moves.warmup_steps) == (scaled_lr(1.5e-4, 4), 40 * 2)
    values = flat("crossmae_base_800")
    assert (values["decoder.depth"], values["decoder.width"], values["decoder.fuse"]) == (12, 512, 12)
    assert (values["epochs"], values["batch_size"], values["masking.ratio"]) == (800, 4096, 0.75)


def test_pixio_s_recipe_reaches_the_job(tmp_path: Path, photographs: Path) -> None:
    ready = prepared("pixio_huge", tmp_path, photographs, "decoder.depth=1", "decoder.width=32", "decoder.heads=2")
    model = ready.module.model
    assert (model.grid, model.encoder.class_tokens, model.encoder.num_prefix_tokens) == ((16, 16), 8, 8)
    assert model.encoder.vit.pos_embed.requires_grad
    assert ready.module.sampler.check(model.grid) == 64
    assert ready.module.sampler.block == 4
    values = flat("pixio_huge")
    assert (values["decoder.depth"], values["decoder.width"], values["decoder.heads"]) == (32, 512, 16)
    assert (values["model.width"], values["model.depth"], values["model.heads"]) == (1280, 32, 16)
    assert values["epochs"] == round(1605 * 400 * 8192 / 1_281_167)
    assert values["optim.warmup_epochs"] == pytest.approx(values["epochs"] / 10, abs=1)


def test_a_probing_recipe_reaches_the_job(tmp_path: Path, photographs: Path) -> None:
    ready = prepared("mae_base_linear", tmp_path, photographs, "checkpoint=null")
    model, crops = ready.module.model, ready.data.train_transform
    (optimizer,) = {type(ready.module.optimization.optimizer(model)).__name__}
    assert (optimizer, ready.module.optimization.lr) == ("PairedLars", scaled_lr(0.1, 4))
    assert (ready.module.optimization.momentum, ready.module.optimization.weight_decay) == (0.9, 0)
    assert ready.module.optimization.warmup_steps == 10 * 2
    norm = model.head.norm
    assert isinstance(norm, nn.BatchNorm1d) and not norm.affine
    assert model.pool == "token"
    assert {name for name, value in model.named_parameters() if value.requires_grad} == {
        "head.linear.weight",
        "head.linear.bias",
    }
    assert (crops.min_scale, crops.flip, crops.augment) == (0.08, True, None)
    assert ready.setting.config.baselines is False


def test_a_fine_tuning_recipe_reaches_the_job(tmp_path: Path, photographs: Path) -> None:
    ready = prepared("mae_base_finetune", tmp_path, photographs, "checkpoint=null", "model.depth=2")
    module, moves, crops = ready.module, ready.module.optimization, ready.data.train_transform
    assert (moves.lr, moves.betas, moves.final_lr) == (scaled_lr(5e-4, 4), (0.9, 0.999), 5e-4)
    rates = {group["lr"] for group in moves.optimizer(module.model).param_groups}
    assert max(rates) == pytest.approx(moves.lr)
    assert min(rates) == pytest.approx(moves.lr * 0.65**3)  # two blocks lie between the embedding and the head
    mix, erase = module.augmentation.mix, module.augmentation.erase
    assert (mix.mixup_alpha, mix.cutmix_alpha, mix.label_smoothing, erase.probability) == (0.8, 1.0, 0.1, 0.25)
    assert (crops.min_scale, crops.flip) == (0.08, True)
    assert crops.augment is not None
    assert module.model.pools_first
    assert module.model.encoder.vit.blocks[-1].drop_path1.drop_prob == pytest.approx(0.1)


def test_partial_fine_tuning_trains_the_blocks_of_the_recipe(tmp_path: Path, photographs: Path) -> None:
    ready = prepared("mae_large_partial", tmp_path, photographs, "checkpoint=null", "model.depth=3")
    trained = {name for name, value in ready.module.model.named_parameters() if value.requires_grad}
    assert {name.split(".")[3] for name in trained if ".blocks." in name} == {"2"}
    assert not any("embed" in name for name in trained)
    assert ready.module.augmentation.erase is None


def test_a_checkpoint_of_another_size_is_refused(tmp_path: Path, photographs: Path) -> None:
    # Released weights of a ViT of one block, 64 wide, where the recipe is for ViT-B.
    block = {"norm1": (64,), "attn.qkv": (192, 64), "attn.proj": (64, 64), "norm2": (64,)}
    block |= {"mlp.fc1": (256, 64), "mlp.fc2": (64, 256)}
    state = {"cls_token": torch.zeros(1, 1, 64), "pos_embed": torch.zeros(1, 197, 64)}
    shapes = {
        "patch_embed.proj": (64, 3, 16, 16),
        "norm": (64,),
        **{f"blocks.0.{key}": shape for key, shape in block.items()},
    }
    for key, shape in shapes.items():
        state |= {f"{key}.weight": torch.zeros(shape), f"{key}.bias": torch.zeros(shape[0])}
    torch.save({"model": state}, tmp_path / "released.pth")
    given = ("experiment=mae_base_linear", f"checkpoint={tmp_path / 'released.pth'}", f"data.root={photographs}")
    with pytest.raises(ValueError, match=r"model\.width=768 does not fit the checkpoint .* has 64"):
        job("finetune", tmp_path / "run", *given)


def test_nothing_is_left_to_fill_in() -> None:
    repository = Path(__file__).parent.parent
    for path in [*repository.glob("conf/**/*.yaml"), *repository.glob("docs/*.md"), repository / "README.md"]:
        assert not re.search(r"TBD|@[A-Z0-9]+@", path.read_text(encoding="utf-8")), path
