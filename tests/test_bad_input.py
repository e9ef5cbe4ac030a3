"""What people get wrong, and the line that they read then: before any work starts, and with nothing left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mae
from tests.data.drawing import write_folder, write_image
from tests.runs import ENCODER, REPOSITORY, contents, job, shared_pretraining

SCRATCH = {"pretrain": (), "finetune": ("checkpoint=null",)}


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, so that whatever is left behind is seen."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a finished pretraining."""
    return shared_pretraining(tmp_path_factory)


Refuse = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path) -> Iterator[Refuse]:
    """Prepare a stage that must be refused; return the message."""
    folder = tmp_path / "refused"

    def refuse(stage: str, *overrides: str, error: type[Exception] | tuple[type[Exception], ...] = ValueError) -> str:
        before = set(os.listdir())  # noqa: PTH208
        with pytest.raises(error) as raised:
            job(stage, folder, *overrides)
        # Exactly what the scripts turn into one line and status 2.
        assert isinstance(raised.value, ValueError | FileNotFoundError | ImportError)
        message = str(raised.value)
        assert "\n" not in message
        assert set(os.listdir()) == before  # noqa: PTH208
        return message

    yield refuse
    assert not folder.exists()


def test_a_missing_data_folder(refused: Refuse) -> None:
    for stage, source in (("pretrain", "folder"), ("pretrain", "image_folder"), ("finetune", "image_folder")):
        message = refused(stage, f"data={source}", "data.root=nowhere", *SCRATCH[stage], error=FileNotFoundError)
        assert message == "data.root=nowhere does not exist"


def test_no_data_folder_at_all(refused: Refuse) -> None:
    assert "data=folder needs a folder: data.root=DIR" in refused("pretrain", "data=folder")


def test_a_file_for_a_folder(refused: Refuse, tmp_path: Path) -> None:
    write_image(tmp_path / "one.png")
    assert "one.png is an image: give the folder that holds it" in refused(
        "pretrain", "data=folder", "data.root=one.png"
    )


def test_an_empty_folder(refused: Refuse, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty holds no image: it is empty" in refused("pretrain", "data=folder", "data.root=empty")


def test_a_folder_of_text_files(refused: Refuse, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for name in ("a.txt", "b.txt", "c.md"):
        (tmp_path / "texts" / name).write_text("words")
    message = refused("pretrain", "data=folder", "data.root=texts")
    assert "texts holds no image: only 2 .txt, 1 .md" in message
    assert ".jpg" in message


def test_a_folder_of_files_that_are_no_images(refused: Refuse, tmp_path: Path) -> None:
    (tmp_path / "garbage").mkdir()
    for number in range(12):
        (tmp_path / "garbage" / f"{number:02}.jpg").write_bytes(bytes(range(number, 200)))
    message = refused("pretrain", "data=folder", "data.root=garbage")
    assert "none of the images looked at can be read" in message
    assert ".jpg" in message


def test_a_folder_of_one_image(refused: Refuse, tmp_path: Path) -> None:
    write_folder(tmp_path / "one", 1)
    assert "1 image is too few" in refused("pretrain", "data=folder", "data.root=one")


def test_a_folder_whose_name_is_a_number(refused: Refuse) -> None:
    # Hydra reads data.root=2024 as an integer.
    assert "2024 does not exist" in refused("pretrain", "data=folder", "data.root=2024", error=FileNotFoundError)
    assert "2024" in refused("finetune", "checkpoint=2024", error=FileNotFoundError)


def test_a_run_folder_whose_name_is_a_number(tmp_path: Path) -> None:
    prepared = job("pretrain", None, "run_dir=123")
    assert prepared.setting.folder.path == Path("123")


def test_images_of_one_flat_colour(refused: Refuse, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    for number in range(30):
        Image.new("RGB", (20, 20), (9, 9, 9)).save(tmp_path / "flat" / f"{number}.png")
    assert "one flat colour" in refused("pretrain", "data=folder", "data.root=flat")


def test_an_image_size_that_the_patch_does_not_divide(refused: Refuse) -> None:
    for size in ("18", "[16,18]"):
        message = refused("pretrain", f"data.image_size={size}", "model.patch_size=4")
        assert "18 is not divisible by the patch size 4" in message
        assert "16x16 would be" in message


def test_a_timm_model_that_is_no_vit(refused: Refuse) -> None:
    sizes = ("model.width=null", "model.depth=null", "model.heads=null", "model.patch_size=null")
    for name in ("swin_tiny_patch4_window7_224", "resnet18"):
        message = refused("pretrain", f"model.name={name}", *sizes)
        assert f"model.name={name!r}" in message
        assert "is no ViT" in message
        assert "choose a ViT such as vit_" in message


def test_a_timm_model_that_is_neither_a_vit_nor_convolutional(refused: Refuse) -> None:
    for name in ("swin_tiny_patch4_window7_224", "mixer_s16_224"):
        message = refused("finetune", f"model.name={name}", *SCRATCH["finetune"])
        assert f"{name}" in message
        assert "choose one such as resnet50 or convnext_tiny, or a ViT" in message


def test_a_model_that_timm_does_not_know(refused: Refuse) -> None:
    message = refused("pretrain", "model.name=vit_bse_patch16_224")
    assert "'vit_bse_patch16_224' is not a timm model: did you mean vit_base_patch16_224" in message


def test_a_masking_ratio_that_hides_all_or_nothing(refused: Refuse) -> None:
    for ratio in ("0", "1", "0.0", "1.0", "-0.5", "1.5"):
        assert f"masking.ratio={ratio} hides all or no patches" in refused("pretrain", f"masking.ratio={ratio}")
    for ratio in ("0.8", "0.99"):
        message = refused("pretrain", f"masking.ratio={ratio}", "data.image_size=16", "model.patch_size=8")
        assert f"masking.ratio={ratio} hides 4 of 4 patches" in message
        assert "choose between 0.25 and 0.75" in message


def test_a_grid_of_one_patch_leaves_nothing_to_hide(refused: Refuse) -> None:
    assert "of 1 patch" in refused("pretrain", "data.image_size=16", "model.patch_size=16")


def test_fewer_images_than_one_batch(refused: Refuse, tmp_path: Path) -> None:
    write_folder(tmp_path / "few", 20)
    message = refused("pretrain", "data=folder", "data.root=few", "batch_size=64")
    assert "batch_size=64 is more than the 18 training images: choose 18 or less" in message
    message = refused("finetune", "checkpoint=null", "labels_per_class=2", "batch_size=64")
    assert "batch_size=64 is more than the 20 training images: choose 20 or less" in message


def test_a_checkpoint_that_is_not_there(refused: Refuse) -> None:
    message = refused("finetune", "checkpoint=nowhere/last.ckpt", error=FileNotFoundError)
    assert message.startswith("no checkpoint at nowhere/last.ckpt")


def test_no_checkpoint_given(refused: Refuse) -> None:
    message = refused("finetune")
    assert message.startswith("checkpoint is missing")
    assert "checkpoint=null" in message


def test_no_checkpoint_given_where_a_run_lies_names_it(refused: Refuse, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "runs" / "pretrain" / "mine")
    assert f"such as checkpoint={Path('runs/pretrain/mine')}" in refused("finetune")


def test_a_text_file_for_a_checkpoint(refused: Refuse, tmp_path: Path) -> None:
    for name in ("notes.txt", "notes.ckpt", "notes.pth"):
        for content in ("a note, no weights\n", ""):
            (tmp_path / name).write_text(content)
            assert refused("finetune", f"checkpoint={name}").startswith(f"{name} is not a checkpoint")


def test_a_text_file_for_safetensors(refused: Refuse, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("no weights")
    assert "model.safetensors" in refused("finetune", "checkpoint=model.safetensors")


def test_a_folder_that_is_no_checkpoint(refused: Refuse, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    assert "pictures is not a checkpoint: it has neither config.json nor" in refused("finetune", "checkpoint=pictures")


def test_an_encoder_where_the_decoder_is_needed(run: Path) -> None:
    with pytest.raises(
        ValueError, match=r"holds an encoder alone, and reconstruction needs the decoder: .*checkpoints/last\.ckpt"
    ):
        mae.load_autoencoder(run / "encoder")


def test_a_checkpoint_of_another_shape(refused: Refuse, run: Path) -> None:
    stored = {
        "model.width=64": 32,
        "model.depth=3": 1,
        "model.patch_size=8": 4,
        "data.channels=3": 1,
        "model.heads=4": 2,
        "model.norm_eps=0.001": "1e-06",
    }
    for override, value in stored.items():
        message = refused("finetune", f"checkpoint={run}", override)
        assert f"{override} does not fit the checkpoint" in message
        assert f"has {value}" in message
        assert "checkpoint=null" in message


def test_an_image_size_that_the_checkpoints_patch_does_not_divide(refused: Refuse, run: Path) -> None:
    assert "patch size 4" in refused("finetune", f"checkpoint={run}", "data.image_size=18")


def test_a_folder_that_holds_a_run(run: Path) -> None:
    before = contents(run)
    for stage, scratch in SCRATCH.items():
        with pytest.raises(
            ValueError, match=r"already holds a run: resume=true continues it, another run_dir starts a new"
        ):
            job(stage, run, *scratch)
    assert contents(run) == before


def test_a_file_for_a_run_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="file is a file: give a folder"):
        job("pretrain", tmp_path / "file")


def test_resuming_without_saying_which_run() -> None:
    with pytest.raises(ValueError, match=r"resume=true needs to know which run: run_dir=DIR"):
        job("pretrain", None, "resume=true")


def test_resuming_a_run_of_the_other_stage(run: Path) -> None:
    before = contents(run)
    with pytest.raises(ValueError, match="run_dir"):
        job("finetune", run, "checkpoint=null", "resume=true")
    assert contents(run) == before


def test_labels_asked_for_where_there_are_none(refused: Refuse, tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", 30)
    for protocol in ("linear_probe", "finetune"):
        message = refused("finetune", "checkpoint=null", f"protocol={protocol}", "data=folder", "data.root=photos")
        assert f"protocol={protocol} needs labels, and data=folder has none" in message
        assert "data=image_folder" in message


def test_more_labels_than_a_class_has(refused: Refuse) -> None:
    message = refused("finetune", "checkpoint=null", "labels_per_class=100000")
    assert "fewer than the 100000 asked for" in message
    assert "labels_per_class=" in message


def test_labels_by_number_and_by_share_at_once(refused: Refuse) -> None:
    message = refused("finetune", "checkpoint=null", "labels_per_class=5", "label_fraction=0.1")
    assert "labels_per_class=5 and label_fraction=0.1 are both given: choose one" in message


def test_one_class_alone(refused: Refuse, tmp_path: Path) -> None:
    write_folder(tmp_path / "data" / "train" / "only", 20)
    message = refused("finetune", "checkpoint=null", "data=image_folder", "data.root=data")
    assert "one class, 'only'" in message


def test_an_extra_that_is_not_installed(refused: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    message = refused("pretrain", "logger=wandb", error=ImportError)
    assert "needs the extra 'wandb', which is not installed: pip install -e '.[wandb]'" in message


def test_a_batch_that_cannot_be_shared_out(refused: Refuse) -> None:
    message = refused("pretrain", "batch_size=50", "trainer.accumulate=4", "trainer.devices=1")
    assert "batch_size=50" in message
    assert "1 devices x trainer.accumulate=4" in message
    assert "48 would" in message or "52 would" in message
    assert "2 devices" in refused("pretrain", "batch_size=51", "trainer.devices=2")


def test_devices_that_are_not_there(refused: Refuse) -> None:
    wrong = ["trainer.devices=none_such", "trainer.strategy=no_such", "trainer.precision=fp3"]
    for override in wrong if torch.cuda.is_available() else [*wrong, "trainer.accelerator=gpu"]:
        assert override.partition("=")[2] in refused("pretrain", override)


def test_a_validation_that_never_comes(refused: Refuse) -> None:
    # The best epoch is chosen on validation: without one there is no best.ckpt, after all the training.
    assert "trainer.validate_every=5" in refused("finetune", "checkpoint=null", "trainer.validate_every=5", "epochs=2")


def test_a_value_that_does_not_fit_the_others(refused: Refuse) -> None:
    # What each key takes by itself: tests/config/test_reading.py, test_composing.py.
    assert "decoder.width=33 is not divisible by decoder.heads=2" in refused("pretrain", "decoder.width=33")
    assert "no_such" in refused("pretrain", "+model.options.no_such=1")
    assert "decoder=linear" in refused("pretrain", "decoder=linear") or "linear" in refused(
        "pretrain", "decoder=linear"
    )


def script(name: str, *overrides: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(REPOSITORY / name), *overrides],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_script_says_one_line_and_ends_with_status_two(tmp_path: Path) -> None:
    done = script("train_pretrain.py", "data=folder", "data.root=nowhere", *ENCODER, folder=tmp_path)
    assert (done.returncode, done.stderr, done.stdout) == (2, "error: data.root=nowhere does not exist\n", "")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_differs_from_the_checkpoint_by_name(
    refused: Refuse, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pretrained = shared_pretraining(tmp_path_factory)
    assert "model.name=vit_large_patch16_224 does not fit the checkpoint" in refused(
        "finetune", f"checkpoint='{pretrained}'", "model.name=vit_large_patch16_224"
    )


def test_a_cut_off_checkpoint_to_resume_from(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ValueError, match=r"last\.ckpt is not a checkpoint"):
        job("pretrain", tmp_path / "run", "resume=true")


def test_fewer_validation_images_than_devices(refused: Refuse, tmp_path: Path) -> None:
    for number in range(9):
        image = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        (tmp_path / "few").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "few" / f"{number}.png")
    message = refused("pretrain", "data=folder", "data.root=few", "batch_size=2", "trainer.devices=2")
    assert "1 validation images are fewer than the 2 devices" in message


def write_classes(root: Path, **counts: int) -> tuple[str, str]:
    """Write a folder of so many images for each class; return what names it."""
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for image in range(count):
            write_image(root / name / f"{image:02}.png", seed=100 * number + image)
    return "data=image_folder", f"data.root={root.parent if root.name in ('train', 'val', 'test') else root}"


def test_a_class_that_training_lacks(refused: Refuse, tmp_path: Path) -> None:
    for split, said, protocol in (("val", "validation", "linear_probe"), ("test", "test", "features")):
        data = write_classes(tmp_path / split / "train", ant=5, bee=0, cat=5)
        write_classes(tmp_path / split / split, ant=2, bee=2, cat=2)
        message = refused("finetune", "checkpoint=null", f"protocol={protocol}", *data)
        assert (
            message == f"the class 'bee' has images for {said} and none for training: add some, or leave the class out"
        )


def test_a_class_folder_that_training_has_not(refused: Refuse, tmp_path: Path) -> None:
    data = write_classes(tmp_path / "data" / "train", ant=5, bee=5)
    write_classes(tmp_path / "data" / "test", ant=2, wasp=2)
    assert "has the class 'wasp', which" in refused("finetune", "checkpoint=null", *data)


def test_a_class_whose_only_image_is_held_out(refused: Refuse, tmp_path: Path) -> None:
    # Where each class gives its share to validation, the only image of one may be drawn.
    lonely = {f"class_{number:02}": 1 for number in range(20)}
    data = write_classes(tmp_path / "data", **lonely)
    message = refused("finetune", "checkpoint=null", *data)
    assert "has images for validation and none for training: add some, or leave the class out" in message
    assert "'class_" in message


def test_several_class_folders_and_images_of_one_alone(refused: Refuse, tmp_path: Path) -> None:
    data = write_classes(tmp_path / "data" / "train", ant=12, bee=0)
    for protocol in ("linear_probe", "features"):
        message = refused("finetune", "checkpoint=null", f"protocol={protocol}", *data)
        assert "'ant'" in message or "'bee'" in message


def test_more_labels_than_one_of_the_classes_has(refused: Refuse, tmp_path: Path) -> None:
    data = write_classes(tmp_path / "data" / "train", ant=9, bee=4, cat=9)
    write_classes(tmp_path / "data" / "val", ant=1, bee=1, cat=1)
    message = refused("finetune", "checkpoint=null", "labels_per_class=5", *data)
    assert message == (
        "the class 'bee' has 4 training images, fewer than the 5 asked for: labels_per_class=4 is the most that every class "
        "can give"
    )


def test_an_odd_batch_that_is_to_be_mixed(refused: Refuse) -> None:
    for mixed in ("protocol.mixup=0.8", "protocol.cutmix=1"):
        overrides = ("checkpoint=null", "protocol=finetune", "labels_per_class=4", mixed)
        message = refused("finetune", *overrides, "batch_size=25")
        key, value = mixed.split("=")
        assert message == (
            f"batch_size=25 gives a device 25 images at a time, and {key}={float(value)} mixes pairs: choose batch_size=26, or "
            f"{key}=0"
        )
        message = refused("finetune", *overrides, "batch_size=30", "trainer.accumulate=2")
        assert "batch_size=30 gives a device 15 images at a time" in message
        assert "choose batch_size=32" in message
        job("finetune", None, *ENCODER, *overrides, "batch_size=32", "trainer.accumulate=2")


def test_an_odd_number_of_labels_that_are_to_be_mixed(tmp_path: Path) -> None:
    # Nobody asked for the batch of 9, and 10 images there are not.
    data = write_classes(tmp_path / "data" / "train", ant=5, bee=5, cat=5)
    overrides = ("checkpoint=null", "protocol=finetune", "labels_per_class=3", "protocol.mixup=0.8", *data)
    try:
        job("finetune", None, *ENCODER, *overrides)
    except ValueError as error:
        remedy = str(error).partition("choose ")[2].partition(",")[0]
        job("finetune", None, *ENCODER, *overrides, remedy)


def test_batches_of_one_image_under_batch_norm(refused: Refuse) -> None:
    for overrides in (("batch_size=1",), ("batch_size=4", "trainer.accumulate=4")):
        message = refused("finetune", "checkpoint=null", "labels_per_class=2", *overrides)
        assert message.startswith(overrides[0])
        assert "one image, and the probe's BatchNorm needs two or more" in message


def test_blocks_that_are_not_there(refused: Refuse, run: Path) -> None:
    for blocks in ("0.3", "1.5", "7", "0.75"):
        message = refused("finetune", f"checkpoint={run}", "protocol=partial_finetune", f"protocol.blocks={blocks}")
        assert message == (
            f"protocol.blocks={blocks} cannot be tuned: the encoder has 1 blocks, so choose a multiple of 0.5 from 0.5 (the "
            f"last MLP) to 1"
        )


def test_no_blocks_to_tune(refused: Refuse, run: Path) -> None:
    message = refused("finetune", f"checkpoint={run}", "protocol=partial_finetune", "protocol.blocks=0")
    assert "protocol.blocks=0 tunes nothing: protocol=linear_probe does that" in message
    message = refused("finetune", f"checkpoint={run}", "protocol=partial_finetune", "protocol.blocks=-1")
    assert "protocol.blocks=-1 is less than 0" in message


@pytest.mark.slow
def test_a_resume_on_data_of_other_classes(tmp_path: Path) -> None:
    train = tmp_path / "data" / "train"
    overrides = (*ENCODER, "checkpoint=null", "data.num_workers=0", *write_classes(train, ant=12, bee=12))
    job("finetune", tmp_path / "run", *overrides).run()
    write_classes(train, cat=12)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="the head in") as raised:
        job("finetune", tmp_path / "run", *overrides, "resume=true")
    assert str(raised.value) == (
        f"the head in {tmp_path / 'run' / 'checkpoints' / 'last.ckpt'} has 2 classes, and data=image_folder now has 3; 'cat' is "
        f"in one of them alone: resume on the data that the run was started with, or start a new run"
    )
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_a_resume_on_as_many_classes_of_other_names(tmp_path: Path) -> None:
    # It would go on, and call a cat a bee.
    train = tmp_path / "data" / "train"
    overrides = (*ENCODER, "checkpoint=null", "data.num_workers=0", *write_classes(train, ant=12, bee=12))
    job("finetune", tmp_path / "run", *overrides).run()
    (train / "bee").rename(train / "cat")
    with pytest.raises(
        ValueError, match=r"the class 'bee', which the run began with, has no folder in .*train: resume on"
    ):
        job("finetune", tmp_path / "run", *overrides, "resume=true")


SWEEP = "protocol.sweep=true"
MEANINGLESS = {
    ("protocol=attentive_probe", "protocol.heads=5"): "protocol.heads=5 does not divide the encoder's width of 32",
    (SWEEP, "protocol.sweep_factors=[]"): "protocol.sweep_factors=[] must be one or more positive numbers",
    (SWEEP, "protocol.sweep_factors=[1,-3]"): "protocol.sweep_factors=[1.0, -3.0] must be one or more positive numbers",
    (SWEEP, "optim.clip_norm=1"): "protocol.sweep=true clips no gradients: leave optim.clip_norm out",
}


def test_a_protocol_that_means_nothing(refused: Refuse, run: Path) -> None:
    for overrides, message in MEANINGLESS.items():
        assert message in refused("finetune", f"checkpoint={run}", *overrides)


def test_an_evaluation_of_nothing(refused: Refuse) -> None:
    message = "evaluate_only=true needs a finished classifier: checkpoint=RUN, the folder of a second-stage run"
    assert refused("finetune", "evaluate_only=true", "checkpoint=null") == message
    with pytest.raises(ValueError, match="evaluate_only=true needs a finished classifier"):
        job("finetune", None, "evaluate_only=true")
