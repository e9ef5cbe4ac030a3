"""task=segmentation: from images with masks to a run folder, and what is refused before work starts."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.functional.classification import multiclass_jaccard_index

from mae.checkpoints.load import load_encoder
from mae.checkpoints.read import read_pickle
from mae.config.composing import compose
from mae.downstream.prepare import prepare
from mae.downstream.results_table import write_results_tables
from mae.evaluation.segmentation_scores import read_image_counts
from tests.report.test_page import assert_self_contained, outline
from tests.runs import QUIET, job, names, shared_pretraining

FILES = {
    "config.yaml",
    "environment.json",
    "metrics.csv",
    "results.json",
    "report.html",
    "per_class.csv",
    "per_image.csv",
}


def draw_pair(seed: int, side: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Draw a grey image of a bright disc (1) and a dark box (2) on a middle ground (0), and its mask; a corner has no label."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    mask = np.zeros((side, side), np.uint8)
    top, left = rng.integers(0, side - 8, 2)
    mask[top : top + 8, left : left + 8] = 2
    centre = rng.integers(4, side - 4, 2)
    mask[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < 16] = 1
    image = np.array([120, 230, 20])[mask] + rng.normal(0, 8, mask.shape)
    mask[:2, :2] = 255
    return image.clip(0, 255).astype(np.uint8), mask


def write_pairs(root: Path, count: int, split: str, first: int = 0) -> Path:
    for folder in (split, f"{split}annot"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        image, mask = draw_pair(number)
        Image.fromarray(image).save(root / split / f"{number:03}.png")
        Image.fromarray(mask).save(root / f"{split}annot" / f"{number:03}.png")
    return root


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_pairs(tmp_path_factory.mktemp("shapes"), 24, "train")
    return write_pairs(write_pairs(root, 5, "val", 100), 7, "test", 200)


SMALL = ("task.neck_width=16", "task.width=16", "data.num_workers=0")


def segment(folder: Path | None, root: Path, *overrides: str) -> Any:
    return job("finetune", folder, "task=segmentation", f"data.root={root}", *SMALL, *overrides)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> tuple[Path, dict[str, Any], torch.Tensor]:
    """Give a finished run from a pretrained encoder, with its baseline: its folder, its results, and its confusion matrix."""
    folder = tmp_path_factory.mktemp("segmentation") / "run"
    overrides = ("epochs=20", "batch_size=8", "baselines=true", "data.classes=[ground,disc,box]")
    prepared = segment(folder, shapes, f"checkpoint={shared_pretraining(tmp_path_factory)}", *overrides)
    results = dict(prepared.run())
    return folder, results, prepared.module.scored


def test_a_run_leaves_what_is_promised(run: tuple[Path, dict[str, Any], torch.Tensor]) -> None:
    folder, results, _ = run

    assert names(folder) >= FILES
    assert {"checkpoints/best.ckpt", "checkpoints/last.ckpt", "pictures/segmentations.png"} <= names(folder)
    assert json.loads((folder / "results.json").read_text()) == results
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert_self_contained(html)
    assert "mean IoU" in html and "disc" in html
    assert "<h2>Segmentations</h2>" in html
    assert (results["task"], results["labelled_images"], results["test_images"]) == ("segmentation", 24, 7)
    assert load_encoder(folder).width == 32


def test_it_learns_and_says_so_beside_its_baselines(run: tuple[Path, dict[str, Any], torch.Tensor]) -> None:
    _, results, _ = run
    assert results["test_miou"] > 0.55
    assert results["test_miou_commonest"] < 0.35
    assert 0 < results["random_miou"] <= 1


def test_the_difference_is_paired_over_the_images(
    run: tuple[Path, dict[str, Any], torch.Tensor],
) -> None:
    folder, results, confusion = run
    mean, low, high = results["differences"]["random"]
    assert mean == pytest.approx(results["test_miou"] - results["random_miou"])
    assert low <= mean <= high
    assert results["verdict"] == ("helped" if low > 0 else "hurt" if high < 0 else "no difference")
    below, above = results["test_miou_interval"]
    assert below <= results["test_miou"] <= above
    counts = read_image_counts(folder / "per_image.csv", ("ground", "disc", "box"))
    assert len(counts) == 7
    found, true, predicted = torch.stack(list(counts.values())).sum(dim=0).reshape(3, 3)
    assert found.tolist() == confusion.diagonal().tolist()
    assert true.tolist() == confusion.sum(dim=1).tolist()
    assert predicted.tolist() == confusion.sum(dim=0).tolist()
    text = outline((folder / "report.html").read_text(encoding="utf-8")).text
    first = re.search(r"(Helped|No difference|Hurt): segmentation, 24 images with masks", text)
    assert first is not None and first[1].lower() == results["verdict"]


def test_figures_are_those_of_the_predicted_pixels(
    run: tuple[Path, dict[str, Any], torch.Tensor], shapes: Path
) -> None:
    folder, results, confusion = run
    prepared = segment(None, shapes, f"checkpoint={folder}", "epochs=1", "baselines=false")
    state = read_pickle(folder / "checkpoints" / "best.ckpt")["state_dict"]
    prepared.module.load_state_dict(state)
    module = prepared.module.eval()
    batches = list(prepared.data.test_dataloader())
    with torch.no_grad():
        predicted = torch.cat([module(batch.images).argmax(dim=1) for batch in batches])
    masks = torch.cat([batch.labels for batch in batches]).long()

    expected = multiclass_jaccard_index(predicted, masks, 3, average="macro", ignore_index=255).item()
    assert results["test_miou"] == pytest.approx(expected, abs=1e-6)
    known = masks != 255
    assert results["test_pixel_accuracy"] == pytest.approx((predicted == masks)[known].float().mean().item(), abs=1e-6)
    assert confusion.sum() == known.sum()
    with (folder / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["ground", "disc", "box"]
    assert [int(row["pixels"]) for row in rows] == confusion.sum(dim=1).tolist()


def test_a_finished_segmenter_is_scored_again(run: tuple[Path, dict[str, Any], torch.Tensor], tmp_path: Path) -> None:
    folder, results, _ = run
    again = job("finetune", tmp_path / "again", "evaluate_only=true", f"checkpoint={folder}").run()
    larger = job(
        "finetune", tmp_path / "larger", "evaluate_only=true", f"checkpoint={folder}", "data.image_size=24"
    ).run()

    for name in ("test_miou", "test_pixel_accuracy", "test_mean_accuracy"):
        assert again[name] == pytest.approx(results[name], abs=1e-6)
    assert larger["test_miou"] > results["test_miou_commonest"]
    assert (tmp_path / "again" / "pictures" / "segmentations.png").is_file()


def test_a_frozen_encoder_stays_bit_for_bit(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, shapes: Path
) -> None:
    checkpoint = shared_pretraining(tmp_path_factory)
    given = ("protocol.frozen=true", "protocol.drop_path=0.2", "epochs=2", "baselines=false")
    segment(tmp_path / "run", shapes, f"checkpoint={checkpoint}", *given).run()

    before, after = (load_encoder(folder).state_dict() for folder in (checkpoint, tmp_path / "run"))
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("neck", [pytest.param("fpn", marks=pytest.mark.slow), "vt_fpn"])
def test_convolutional_networks_are_segmented_and_resumed(tmp_path: Path, shapes: Path, neck: str) -> None:
    sizes = ("checkpoint=null", "model.name=resnet10t", "data.image_size=32", "task.tokens=1", "task.token_width=32")
    given = (*sizes, f"task.neck={neck}", "batch_size=8", "epochs=2", "protocol.layer_decay=1")
    first = segment(tmp_path / "run", shapes, *given).run()
    again = prepare(compose("finetune", [f"run_dir={tmp_path / 'run'}", "resume=true", *QUIET])).run()

    assert again["test_miou"] == first["test_miou"]
    assert "random_miou" not in first


@pytest.mark.slow
def test_a_run_repeats_itself(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> None:
    given = (
        f"checkpoint={shared_pretraining(tmp_path_factory)}",
        "epochs=1",
        "baselines=false",
        "protocol.drop_path=0.3",
    )
    first, second = (segment(tmp_path / name, shapes, *given).run() for name in ("a", "b"))
    assert first["val_loss"] == second["val_loss"]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ("protocol=linear_probe",),
            "protocol=linear_probe is for classes of images, and task=segmentation takes protocol=dense",
        ),
        (("label_fraction=0.5",), "label_fraction=0.5 draws labelled images by their class"),
        (("task.neck=fpn",), r"task\.neck=fpn does not fit vit_tiny_patch16_224, which gives one map: choose simple"),
        (("task.neck=unet",), r"task\.neck='unet' is unknown: choose one of"),
        (
            ("model.name=resnet18", "task.neck=simple"),
            r"task\.neck=simple does not fit resnet18, which gives several maps",
        ),
        (
            ("model.name=resnet18", "task.neck=vt_fpn", "data.image_size=32"),
            r"task\.tokens=8 does not fit a feature map of 2x2 pixels: choose 1 to 4, larger images",
        ),
        (("model=vt_resnet18", "data.image_size=224"), "has no feature maps to segment"),
        (("data=digits",), "segmentation needs masks, and these data have none: data=segmentation_folder reads them"),
        (("data.classes=2",), "holds the id 2, and there are 2 classes"),
        (("task.tokens=null",), r"task\.tokens=null is not a value"),
        (("task.name=detection",), r"task\.name='detection' is unknown: choose one of classification, segmentation"),
    ],
)
def test_what_does_not_fit_is_refused_before_work_starts(
    tmp_path: Path, shapes: Path, overrides: tuple[str, ...], says: str
) -> None:
    where = () if "data=digits" in overrides else (f"data.root={shapes}",)
    given = ("task=segmentation", *where, *SMALL, *QUIET, "checkpoint=null", *overrides)
    with pytest.raises(ValueError, match=says):
        job("finetune", tmp_path / "run", *given)
    assert not (tmp_path / "run").exists()


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data", 4, "train")
    Image.fromarray(draw_pair(0)[1][:20]).save(root / "trainannot" / "002.png")
    with pytest.raises(ValueError, match=r"002\.png has 24 x 24 pixels, upright, and its mask 24 x 20"):
        segment(tmp_path / "run", root, "checkpoint=null")


def test_images_with_masks_are_pretrained_on_as_images(tmp_path: Path, shapes: Path) -> None:
    results = job("pretrain", tmp_path / "run", "data=segmentation_folder", f"data.root={shapes}", "epochs=1").run()
    assert results["val_loss"] > 0
    assert "knn_top1" not in results


def test_runs_stand_in_the_table_by_their_mean_iou(
    run: tuple[Path, dict[str, Any], torch.Tensor], tmp_path: Path
) -> None:
    folder, results, _ = run
    ((table,), warnings) = write_results_tables([folder], tmp_path)
    assert warnings == []
    text = (tmp_path / "table.md").read_text()
    assert "segmentation, mean IoU" in text and f"{100 * results['test_miou']:.1f}%" in text
    assert f"{100 * results['random_miou']:.1f}%" in text
    assert "7 test images" in table.title


def test_masks_without_the_task_and_the_protocol_without_it_say_so(tmp_path: Path, shapes: Path) -> None:
    given = ("checkpoint=null", "data=segmentation_folder", f"data.root={shapes}")
    with pytest.raises(ValueError, match="task=segmentation learns from masks"):
        job("finetune", tmp_path / "run", *given)
    with pytest.raises(ValueError, match="protocol=dense belongs to task=segmentation: give that too"):
        job("finetune", tmp_path / "run", "checkpoint=null", "protocol=dense")


def test_masks_of_a_split_without_any_label_are_refused(tmp_path: Path) -> None:
    root = write_pairs(write_pairs(tmp_path / "data", 4, "train"), 2, "val", 10)
    for path in (root / "valannot").iterdir():
        Image.fromarray(np.full((24, 24), 255, np.uint8)).save(path)
    with pytest.raises(ValueError, match="no pixel of the val masks looked at has a label"):
        segment(tmp_path / "run", root, "checkpoint=null")


@pytest.mark.slow
def test_a_first_validation_batch_without_a_label_stops_no_run(tmp_path: Path) -> None:
    root = write_pairs(write_pairs(tmp_path / "data", 4, "train"), 2, "val", 10)
    Image.fromarray(np.full((24, 24), 255, np.uint8)).save(root / "valannot" / "010.png")
    results = segment(tmp_path / "run", root, "checkpoint=null", "batch_size=1", "epochs=1").run()
    assert 0 <= results["val_miou"] <= 1
