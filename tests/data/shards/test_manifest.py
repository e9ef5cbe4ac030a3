"""Manifests that disagree with their shards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.tarring import numbered, open_shards, pack_folder, write_classes, write_tar


def break_manifest(root: Path, **changes: object) -> None:
    content = json.loads((root / "manifest.json").read_text())
    train = content["splits"]["train"]
    for key, value in changes.items():
        if key in train["shards"][0]:
            train["shards"][0][key] = value
        else:
            (train if key in train else content)[key] = value
    (root / "manifest.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"name": "train-000009.tar"},
            r"train-000009\.tar is missing, which manifest\.json names: copy it again, or pack",
        ),
        ({"bytes": 7}, r"has [\d,]+ bytes, and 7 by manifest\.json: copy it again, or pack again"),
        ({"images": 5}, None),
        ({"classes": ["ant"]}, "images of class 1, and manifest.json names 1 classes: pack again"),
        ({"format": 2}, "its format is 2, and 1 is read here"),
        ({"splits": 3}, "is no manifest of mae data pack"),
    ],
)
def test_a_manifest_that_disagrees_is_said(tmp_path: Path, changes: dict[str, object], message: str | None) -> None:
    pack_folder(write_classes(tmp_path / "images"), tmp_path / "packed")
    if message is None:  # the number of images of the split
        content = json.loads((tmp_path / "packed" / "manifest.json").read_text())
        content["splits"]["train"]["images"] = 5
        (tmp_path / "packed" / "manifest.json").write_text(json.dumps(content))
        message = "hold 12 images, and 5 by manifest.json: pack again"
    else:
        break_manifest(tmp_path / "packed", **changes)
    with pytest.raises(ValueError, match=message):
        open_shards(tmp_path / "packed")


def test_a_shard_that_the_manifest_does_not_know_is_refused(tmp_path: Path) -> None:
    pack_folder(write_classes(tmp_path / "images"), tmp_path / "packed")
    write_tar(tmp_path / "packed" / "train-000001.tar", numbered(0, 2))
    with pytest.raises(ValueError, match=r"train-000001\.tar is not in .*manifest\.json: move it away"):
        open_shards(tmp_path / "packed")
