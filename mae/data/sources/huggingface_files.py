"""What a data set of the Hugging Face hub, or local files in its formats, consist of: splits and columns."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mae.data.splits import SPLIT_NAMES

LABELS = ("label", "labels")


def load_parts(
    root: str | None, config: str | None = None, val_root: str | None = None, streaming: bool = False
) -> dict[str, Any]:
    """Return the splits ``train`` and, where they exist, ``val`` and ``test``.

    Raises:
        ValueError: There is no such data set, it cannot be reached, or none of its splits is for training.
        FileNotFoundError: A local path does not exist.
        ImportError: The extra is not installed.
    """
    if root is None:
        raise ValueError("data=huggingface needs a name of the hub, a folder or parquet files: data.root=NAME")
    parts = _load("data.root", root, config, streaming)
    if val_root is not None:
        parts["val"] = _load("data.val_root", val_root, None, streaming)["train"]
    return parts


def _load(key: str, root: str, config: str | None, streaming: bool) -> dict[str, Any]:
    try:
        import datasets
    except ImportError:
        raise ImportError(
            "data=huggingface needs the extra 'huggingface', which is not installed: pip install -e '.[huggingface]'"
        ) from None
    arguments = locate(root, key)
    if "path" not in arguments:
        arguments |= {"path": root, "name": config}
    try:
        found = dict(datasets.load_dataset(**arguments, streaming=streaming))
    except Exception as error:  # each of the libraries below has errors of its own
        raise ValueError(_why(f"{key}={root}", error)) from None
    parts = {SPLIT_NAMES[name]: part for name, part in found.items() if name in SPLIT_NAMES}
    if "train" not in parts and len(found) == 1:
        return {"train": next(iter(found.values()))}
    if "train" not in parts:
        raise ValueError(f"{key}={root} has the splits {', '.join(found)}, and none is called train")
    return parts


def locate(root: str, key: str = "data.root") -> dict[str, Any]:
    """Return how ``load_dataset`` is asked for local files; nothing for a name of the hub.

    Raises:
        FileNotFoundError: A local path does not exist.
    """
    path = Path(root).expanduser()
    if path.is_dir():
        holds_parquet = next(path.rglob("*.parquet"), None) is not None
        return {"path": "parquet" if holds_parquet else "imagefolder", "data_dir": str(path)}
    if root.endswith(".parquet") or "*" in root:
        files = [root] if "://" in root else sorted(glob.glob(str(path)))  # noqa: PTH207 - patterns may be absolute
        if files:
            return {"path": "parquet", "data_files": files}
    elif not root.startswith(("/", ".", "~")):
        return {}
    raise FileNotFoundError(f"{key}={root} does not exist")


def _why(what: str, error: Exception) -> str:
    """Return in one line why a data set cannot be opened, and what to do."""
    lines = (str(error) or type(error).__name__).splitlines()
    words = lines[0]
    if isinstance(error, FileNotFoundError):
        return f"{what} is neither here nor on the hub ({words}): check the name; private and gated data sets need hf auth login"
    if isinstance(error, ConnectionError):
        return (
            f"{what} cannot be looked up, the hub is not reachable ({words}): check the connection, or give local files"
        )
    if "config" in words.lower():
        return f"{what} cannot be opened: {' '.join(lines[:2])}; data.config chooses one"
    return f"{what} cannot be opened ({words})"


def find_columns(
    features: Mapping[str, Any] | None,
    root: str,
    image_column: str | None = None,
    label_column: str | None = None,
    labels: bool = True,
) -> tuple[str, str | None]:
    """Return the columns of images and labels; None where there are no labels.

    Args:
        features: Type of each column.
        root: The data set, for messages.
        image_column: Kept where it is given.
        label_column: Kept where it is given.
        labels: Whether labels are wanted.

    Raises:
        ValueError: A column is not there, or several could be meant.
    """
    features = features or {}
    for key, column in (("image_column", image_column), ("label_column", label_column)):
        if column is not None and column not in features:
            raise ValueError(f"data.{key}={column} is no column of {root}: it has {', '.join(features)}")
    image = image_column or _only("image", _of_type(features, "Image"), root)
    if image is None:
        raise ValueError(
            f"data.root={root} has no column of images: it has {', '.join(features)}; data.image_column names one that holds "
            f"encoded images"
        )
    return image, (label_column or _label_column(features, root)) if labels else None


def _label_column(features: Mapping[str, Any], root: str) -> str | None:
    classes = _of_type(features, "ClassLabel")
    numbers = [name for name in _of_type(features, "Value") if name in LABELS and "int" in features[name].dtype]
    named = [name for name in classes if name in LABELS]
    return _only("label", named or classes or numbers, root)


def _only(kind: str, columns: list[str], root: str) -> str | None:
    if len(columns) > 1:
        raise ValueError(
            f"data.root={root} has several columns of {kind}s, {' and '.join(columns)}: choose one by data.{kind}_column"
        )
    return columns[0] if columns else None


def _of_type(features: Mapping[str, Any], name: str) -> list[str]:
    return [column for column, feature in features.items() if type(feature).__name__ == name]
