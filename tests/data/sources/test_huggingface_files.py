"""Splits and columns of data sets of the Hugging Face hub."""

from __future__ import annotations

from typing import Any

import pytest

from mae.data.sources.huggingface_files import find_columns

datasets = pytest.importorskip("datasets")


IMAGE, CLASSES = datasets.Image(), datasets.ClassLabel(names=["a", "b"])


TEXT, NUMBER = datasets.Value("string"), datasets.Value("int64")


@pytest.mark.parametrize(
    ("features", "given", "expected"),
    [
        ({"img": IMAGE, "label": CLASSES}, {}, ("img", "label")),
        ({"img": IMAGE, "labels": NUMBER, "id": NUMBER}, {}, ("img", "labels")),
        ({"img": IMAGE, "kind": CLASSES, "label": CLASSES}, {}, ("img", "label")),
        ({"img": IMAGE, "label": TEXT}, {}, ("img", None)),
        ({"a": IMAGE, "b": IMAGE, "kind": CLASSES}, {"image_column": "b"}, ("b", "kind")),
        ({"img": IMAGE, "fine": CLASSES, "coarse": CLASSES}, {"label_column": "fine"}, ("img", "fine")),
    ],
)
def test_columns_are_found(features: dict[str, Any], given: dict[str, Any], expected: tuple[str, str | None]) -> None:
    assert find_columns(datasets.Features(features), "NAME", **given) == expected


@pytest.mark.parametrize(
    ("features", "given", "message"),
    [
        (
            {"text": TEXT},
            {},
            "data.root=NAME has no column of images: it has text; data.image_column names one that holds ",
        ),
        (
            {"a": IMAGE, "b": IMAGE},
            {},
            "data.root=NAME has several columns of images, a and b: choose one by data.image_column",
        ),
        (
            {"a": IMAGE, "f": CLASSES, "g": CLASSES},
            {},
            "several columns of labels, f and g: choose one by data.label_column",
        ),
        ({"a": IMAGE}, {"image_column": "x"}, "data.image_column=x is no column of NAME: it has a"),
        ({"a": IMAGE}, {"label_column": "y"}, "data.label_column=y is no column of NAME: it has a"),
    ],
)
def test_columns_that_are_not_clear(features: dict[str, Any], given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="column") as raised:
        find_columns(datasets.Features(features), "NAME", **given)
    assert message in str(raised.value)
