"""One table over many runs, of folders written by hand."""

from __future__ import annotations

import copy
import csv
import functools
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from typer.testing import CliRunner

from mae.cli.app import app
from mae.config.composing import compose
from mae.downstream.comparable_runs import collect
from mae.downstream.results_table import results_tables, write_results_tables
from mae.report.tables import Row, Table, to_markdown
from tests.runs import shared_pretraining

QUANTILES = {2: 12.706205, 3: 4.302653, 4: 3.182446}
"""97.5% of Student's t with one degree of freedom less, by the number of values (any printed table)."""


@functools.cache
def config(protocol: str) -> dict[str, Any]:
    return compose("finetune", [f"protocol={protocol}", "checkpoint=/runs/first"]).plain()


Finished = Callable[..., Path]


@pytest.fixture
def finished(tmp_path: Path) -> Finished:
    """Write the folder of a finished run, as far as the table reads it; dotted keys override the config."""

    def write(
        results: dict[str, Any] | float, protocol: str = "linear_probe", name: str | None = None, **values: Any
    ) -> Path:
        folder = tmp_path / (name or f"run_{len(list(tmp_path.iterdir())):02}")
        folder.mkdir(parents=True)
        content = OmegaConf.create(copy.deepcopy(config(protocol)))
        for key, value in {"run_dir": str(folder), **values}.items():
            OmegaConf.update(content, key.replace("__", "."), value)
        OmegaConf.save(content, folder / "config.yaml")
        if isinstance(results, float):
            results = {"test_top1": results, "test_images": 360}
        results = {"stage": "finetune", "protocol": protocol, **results}
        (folder / "results.json").write_text(json.dumps(results))
        return folder

    return write


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_mean(row: dict[str, str], name: str, values: list[float]) -> None:
    """Compare the figures of a row with mean and 95% interval by hand."""
    assert float(row[f"{name}_mean"]) == pytest.approx(sum(values) / len(values))
    if len(values) == 1:
        assert row[f"{name}_half_width"] == ""
        return
    half = QUANTILES[len(values)] * statistics.stdev(values) / len(values) ** 0.5
    assert float(row[f"{name}_half_width"]) == pytest.approx(half, rel=1e-5)


def test_seeds_are_averaged_and_protocols_told_apart(finished: Finished, tmp_path: Path) -> None:
    probes, tuned = [0.81, 0.84, 0.90], [0.91, 0.95]
    folders = []
    for seed, top1 in enumerate(probes):
        baselines = {"random_top1": top1 - 0.3 - 0.01 * seed**2, "pixels_top1": 0.7}
        # Where and how a run was made is no setting of it.
        where = {"trainer__devices": seed + 1, "logger__name": "wandb", "trainer__accumulate": 1 + seed}
        folders.append(finished({"test_top1": top1, "test_images": 360, **baselines}, seed=seed, **where))
    folders += [finished(top1, "finetune", seed=seed) for seed, top1 in enumerate(tuned)]
    tables, warnings = write_results_tables(folders, tmp_path / "into" / "deeper")
    assert warnings == []
    first, second = rows(tmp_path / "into" / "deeper")
    assert [(row["protocol"], row["weights"], row["labels"], row["runs"]) for row in (first, second)] == [
        ("linear_probe", "first", "100%", "3"),
        ("finetune", "first", "100%", "2"),
    ]
    assert (first["data"], first["split"], first["images"], first["setting"]) == ("digits", "test", "360", "")
    assert_mean(first, "top1", probes)
    assert_mean(first, "random_top1", [0.51, 0.53, 0.56])
    assert_mean(first, "pixels_top1", [0.7, 0.7, 0.7])
    assert_mean(second, "top1", tuned)
    assert second["random_top1_mean"] == second["pixels_top1_mean"] == ""

    (table,) = tables
    text = (tmp_path / "into" / "deeper" / "table.md").read_text()
    assert to_markdown(table) in text
    assert "### digits, 360 test images" in text
    # 4.302653 x 4.58 / sqrt 3, and 12.706205 x 2.83 / sqrt 2.
    assert "| linear_probe | first | 100% | 3 | 85.0% ± 11.4 | 53.3% ± 6.3 | 70.0% ± 0.0 |" in text
    assert "| finetune | first | 100% | 2 | 93.0% ± 25.4 |  |  |" in text


def test_one_run_has_the_interval_of_its_images(finished: Finished, tmp_path: Path) -> None:
    write_results_tables([finished(0.5)], tmp_path)
    (row,) = rows(tmp_path)
    assert_mean(row, "top1", [0.5])
    assert "| linear_probe | first | 100% | 1 | 50.0% (44.9 to 55.1) |" in (tmp_path / "table.md").read_text()


def test_rows_that_differ_in_a_setting_say_which(finished: Finished, tmp_path: Path) -> None:
    folders = [
        finished(top1, seed=seed, optim__base_lr=rate, protocol__pool=pool)
        for rate, pool, top1 in ((0.1, "mean", 0.5), (0.2, "mean", 0.6), (0.1, "token", 0.7))
        for seed in (0, 1)
    ]
    # Of another name, and so told apart without its settings.
    folders.append(finished(0.8, "finetune", optim__base_lr=9))
    write_results_tables(folders, tmp_path)
    found = [
        (row["protocol"], set(row["setting"].split()), row["runs"], float(row["top1_mean"])) for row in rows(tmp_path)
    ]
    assert found == [
        ("linear_probe", {"optim.base_lr=0.1", "protocol.pool=mean"}, "2", 0.5),
        ("linear_probe", {"optim.base_lr=0.2", "protocol.pool=mean"}, "2", 0.6),
        ("linear_probe", {"optim.base_lr=0.1", "protocol.pool=token"}, "2", 0.7),
        ("finetune", set(), "1", 0.8),
    ]
    assert "| setting |" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(
    "values",
    [{"epochs": 7}, {"batch_size": 8}, {"data__image_size": 32}, {"labels_per_class": 5}, {"label_fraction": 0.1}],
    ids=lambda values: next(iter(values)),
)
def test_what_changes_a_result_makes_another_row(finished: Finished, values: dict[str, Any]) -> None:
    lines, warnings = collect([finished(0.5), finished(0.6, **values)])
    (measured,) = lines.values()
    assert [list(line.accuracies.values()) for line in measured] == [[0.5], [0.6]]
    assert warnings == []


def test_labels_and_weights_are_named(finished: Finished) -> None:
    folders = [
        finished(0.5, labels_per_class=5),
        finished(0.5, label_fraction=0.015),
        finished(0.5, checkpoint=None),
        finished(0.5, checkpoint="runs/mine/checkpoints/last.ckpt"),
        finished(0.5, checkpoint="runs/yours/encoder"),
        finished(0.5, checkpoint="mae_pretrain_vit_base.pth"),
    ]
    ((lines),) = collect(folders)[0].values()
    assert [line.labels for line in lines[:2]] == ["5 per class", "1.5%"]
    assert [line.weights for line in lines[2:]] == ["random", "mine", "yours", "mae_pretrain_vit_base.pth"]


def test_checkpoints_of_one_name_are_not_taken_for_one(finished: Finished) -> None:
    # Jobs of two sweeps are both called 0; averaged, they would look like two seeds of one experiment.
    folders = [
        finished(0.2, checkpoint="runs/sweeps/monday/0", seed=0),
        finished(0.8, checkpoint="runs/sweeps/tuesday/0", seed=1),
    ]
    (lines,) = collect(folders)[0].values()
    assert [list(line.accuracies.values()) for line in lines] == [[0.2], [0.8]]
    assert len({line.weights for line in lines}) == 2


def test_a_run_of_an_earlier_version_shares_the_row_of_a_later_one(finished: Finished) -> None:
    folders = [finished(top1, "finetune", seed=seed) for seed, top1 in enumerate((0.2, 0.8))]
    older = OmegaConf.load(folders[0] / "config.yaml")
    for missing in ("debug", "task", "optim.schedule", "optim.step_epochs", "protocol.head", "protocol.hidden"):
        group, _, key = missing.rpartition(".")
        del (OmegaConf.select(older, group) if group else older)[key]
    older.protocol.mixup, older.optim.betas = 0, [0.9, 1]  # whole numbers as such, where later ones are 0.0
    OmegaConf.save(older, folders[0] / "config.yaml")
    later = OmegaConf.load(folders[1] / "config.yaml")
    later.protocol.mixup, later.optim.betas = 0.0, [0.9, 1.0]
    OmegaConf.save(later, folders[1] / "config.yaml")
    ((line,),) = collect(folders)[0].values()
    assert list(line.accuracies.values()) == [0.2, 0.8]


def test_data_of_one_name_are_not_taken_for_one(finished: Finished) -> None:
    folders = [
        finished(0.2, data__source="image_folder", data__root="/birds/images", seed=0),
        finished(0.8, data__source="image_folder", data__root="/cars/images", seed=1),
    ]
    found = collect(folders)[0].values()
    assert [list(line.accuracies.values()) for lines in found for line in lines] == [[0.2], [0.8]]


FEATURES = {
    "stage": "features",
    "test_images": 360,
    "knn_top1": 0.5,
    "few_shot": {"1 per class": [0.3, 0.4], "100%": [0.6]},
    "random_knn_top1": 0.2,
    "random_few_shot": {"1 per class": [0.1, 0.14], "100%": [0.25]},
    "pixels_knn_top1": 0.7,
    "pixels_few_shot": {"1 per class": [0.35, 0.45], "100%": [0.9]},
}


def test_frozen_features_are_rows_of_neighbours_and_of_regressions(finished: Finished, tmp_path: Path) -> None:
    other = {**FEATURES, "knn_top1": 0.6, "few_shot": {"1 per class": [0.32, 0.38], "100%": [0.7]}}
    write_results_tables([finished(FEATURES, "features", seed=0), finished(other, "features", seed=1)], tmp_path)
    knn, few, full = rows(tmp_path)
    assert [(row["protocol"], row["labels"]) for row in (knn, few, full)] == [
        ("kNN", "100%"),
        ("logistic regression", "1 per class"),
        ("logistic regression", "100%"),
    ]
    assert_mean(knn, "top1", [0.5, 0.6])
    assert_mean(knn, "random_top1", [0.2, 0.2])
    assert_mean(few, "top1", [0.3, 0.4, 0.32, 0.38])
    assert_mean(few, "random_top1", [0.1, 0.14, 0.1, 0.14])
    assert_mean(few, "pixels_top1", [0.35, 0.45, 0.35, 0.45])
    assert_mean(full, "top1", [0.6, 0.7])
    assert_mean(full, "pixels_top1", [0.9, 0.9])


@pytest.mark.parametrize(
    ("results", "values", "title"),
    [
        ({"test_top1": 0.6, "test_images": 359}, {}, "digits, 359 test images"),
        ({"val_top1": 0.6, "val_images": 360}, {}, "digits, 360 validation images"),
        ({"test_top1": 0.6, "test_images": 360}, {"data__source": "other"}, "other, 360 test images"),
    ],
    ids=["images", "split", "data"],
)
def test_runs_that_were_not_measured_alike_stand_apart(
    finished: Finished, tmp_path: Path, results: dict[str, Any], values: dict[str, Any], title: str
) -> None:
    tables, warnings = write_results_tables([finished(0.5), finished(results, seed=1, **values)], tmp_path)
    assert [table.title for table in tables] == ["digits, 360 test images", title]
    assert [len(table.rows) for table in tables] == [1, 1]
    (warning,) = warnings
    assert "not measured alike" in warning
    assert title in warning
    assert f"**{warning}**" in (tmp_path / "table.md").read_text()
    assert [(row["runs"], row["top1_mean"]) for row in rows(tmp_path)] == [("1", "0.5"), ("1", "0.6")]


def test_a_repeated_seed_is_warned_of_and_counts_once(finished: Finished, tmp_path: Path) -> None:
    folders = [finished(0.5, seed=0), finished(0.7, seed=1), finished(0.9, seed=0)]
    _, warnings = write_results_tables(folders, tmp_path)
    assert warnings == [f"{folders[2]} repeats an earlier run of seed 0: the last of them counts."]
    (row,) = rows(tmp_path)
    assert row["runs"] == "2"
    assert_mean(row, "top1", [0.9, 0.7])


def test_a_repeated_measurement_of_features_is_warned_of_once(finished: Finished) -> None:
    _, warnings = collect([finished(FEATURES, "features"), finished(FEATURES, "features")])
    assert len(warnings) == 1


def test_what_is_no_finished_run_is_refused(
    finished: Finished, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    unfinished = finished(0.5)
    (unfinished / "results.json").unlink()
    (tmp_path / "empty").mkdir()
    pretrained = shared_pretraining(tmp_path_factory)
    for folder, message in (
        (unfinished, f"{unfinished} is not the folder of a finished run: it has no results.json"),
        (tmp_path / "empty", "empty is not the folder of a finished run: it has no config.yaml"),
        (tmp_path / "nowhere", "nowhere is not the folder of a finished run: it has no config.yaml"),
        (pretrained, f"{pretrained} is a pretraining run: the table is of runs of train_finetune.py"),
    ):
        done = CliRunner().invoke(app, ["table", str(finished(0.5)), str(folder), "--into", str(tmp_path / "into")])
        assert done.exit_code == 2
        assert done.stderr.startswith("error: ")
        assert done.stderr.endswith(f"{message}\n")
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "into").exists()


def test_the_command_passes_over_files(finished: Finished, tmp_path: Path) -> None:
    # As runs/finetune/* does, where an earlier table lies beside the runs.
    folders = [str(finished(top1, seed=seed)) for seed, top1 in enumerate((0.5, 0.7))]
    (tmp_path / "table.md").write_text("old")
    done = CliRunner().invoke(app, ["table", *folders, str(tmp_path / "table.md"), "--into", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert f"table    {tmp_path / 'table.md'}" in done.stdout
    assert "60.0% ± 127.1" in done.stdout
    assert "60.0% ± 127.1" in (tmp_path / "table.md").read_text()
    done = CliRunner().invoke(app, ["table", str(tmp_path / "table.md")])
    assert done.exit_code == 2
    assert "table.md is a file: give the folders of finished runs" in done.stderr


def test_a_stroke_in_a_name_ends_no_cell() -> None:
    text = to_markdown(Table("T", ("", "top-1"), [Row(("a|b", "1%"), ours=True)], "N"))
    assert text.splitlines() == ["### T", "", "|  | top-1 |", "| --- | ---: |", "| **a\\|b** | **1%** |", "", "N"]


def test_tables_keep_the_order_of_the_runs(finished: Finished) -> None:
    (table,) = results_tables(collect([finished(0.5, name) for name in ("mlp_probe", "finetune")])[0])
    assert [row.cells[0] for row in table.rows] == ["mlp_probe", "finetune"]


def write_right(path: Path, right: list[bool]) -> None:
    path.parent.mkdir(exist_ok=True)
    lines = [f"{number}.png,a,{'a' if one else 'b'},0.9" for number, one in enumerate(right)]
    path.write_text("\n".join(["image,label,predicted,confidence", *lines]))


def test_runs_that_kept_their_predictions_are_paired_over_images_and_seeds(finished: Finished, tmp_path: Path) -> None:
    folders = []
    for seed in range(3):
        ours = [number % 10 < 8 for number in range(100)]
        random = [number % 10 < 5 - (number + seed) % 2 for number in range(100)]
        folder = finished({"test_top1": 0.8, "test_images": 100, "random_top1": sum(random) / 100}, seed=seed)
        write_right(folder / "predictions.csv", ours)
        write_right(folder / "baseline" / "predictions.csv", random)
        write_right(folder / "pixels_predictions.csv", ours[::-1][:50])  # of the first fifty alone
        folders.append(folder)
    write_results_tables(folders, tmp_path / "into")
    (row,) = rows(tmp_path / "into")
    assert row["ahead_of_random_word"] == "helped"
    assert float(row["ahead_of_random_mean"]) == pytest.approx(1 / 3)
    assert 0.1 < float(row["ahead_of_random_low"]) < 0.3
    assert row["ahead_of_pixels_word"] == "no difference"
    assert "| helped, +3" in (tmp_path / "into" / "table.md").read_text()


def test_a_single_run_says_by_how_much_it_is_ahead_itself(finished: Finished, tmp_path: Path) -> None:
    differences = {"random": [0.1, -0.02, 0.2], "pixels": [-0.1, -0.2, -0.01]}
    given = {"test_top1": 0.5, "test_images": 360, "differences": differences}
    few = {"few_shot_random": {"1 per class": [0.2, 0.1, 0.3]}, "logistic_random": [0.3, 0.2, 0.4]}
    write_results_tables([finished(given), finished({**FEATURES, "differences": few}, "features")], tmp_path)
    one, knn, first, every = rows(tmp_path)
    assert (one["ahead_of_random_word"], one["ahead_of_pixels_word"]) == ("no difference", "hurt")
    assert [row["ahead_of_random_mean"] for row in (knn, first, every)] == ["", "0.2", "0.3"]
