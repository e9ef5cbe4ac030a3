"""A pretraining run as a user starts it, in a process of its own; and files that are written whole."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mae.report.rerun import override

SCRIPT = Path(__file__).resolve().parent.parent / "train_pretrain.py"


def pretrain(folder: Path, run: Path, minutes: float | None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Pretrain on a folder of classes for so many minutes, or as overrides say, or go on with what was stopped; return the results.

    Raises:
        ValueError: The run ended otherwise than done; the message is its last line.
    """
    given = ["data=image_folder", override("data.root", str(folder.resolve())), "trainer.devices=1"]
    given += [override("run_dir", str(run)), *([] if minutes is None else [f"minutes={minutes:g}"]), *overrides]
    given += ["resume=true"] if (run / "config.yaml").is_file() else []
    done = subprocess.run([sys.executable, str(SCRIPT), *given], capture_output=True, text=True, check=False)
    run.mkdir(parents=True, exist_ok=True)
    (run / "output.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise ValueError(f"pretraining on {folder.name} ended with status {done.returncode}: {said[-1]}")
    return read_json(run / "results.json")


def named_folders(folders: Sequence[str]) -> dict[str, Path]:
    """Return the folders by their names.

    Raises:
        ValueError: There is none, or two have the same name.
    """
    if not folders:
        raise ValueError("no folder is given: name one or more, each with train/ of classes")
    named: dict[str, Path] = {}
    for text in folders:
        path = Path(text).expanduser()
        name = path.resolve().name
        if name in named:
            raise ValueError(
                f"{named[name]} and {path} have the same name, which tells them apart: run them one by one"
            )
        named[name] = path
    return named


def numbers(text: str, option: str, kind: Callable[[str], Any], fits: Callable[[Any], bool]) -> list[Any]:
    """Return the numbers of a list such as ``1,0.25``.

    Raises:
        ValueError: One is none, or does not fit.
    """
    try:
        values = [kind(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(fits(value) for value in values):
        raise ValueError(f"{option} {text} is no list of numbers, such as {'0,1,2' if kind is int else '1,0.25'}")
    return list(dict.fromkeys(values))


def keep_settings(out: Path, folders: dict[str, Path], **settings: Any) -> None:
    """Keep what the figures in a folder depend on.

    Raises:
        ValueError: Those that lie there were made otherwise, or minutes leave no time.
    """
    if settings["minutes"] is not None and settings["minutes"] <= 0:
        raise ValueError(f"--minutes {settings['minutes']:g} leaves no time: give more than 0")
    path = out / "settings.json"
    known = read_json(path) if path.is_file() else {**settings, "folders": {}}
    for key, value in settings.items():
        if known.get(key) != value:
            raise ValueError(f"--out {out} holds figures of {key}={known.get(key)}, not {value}: give another --out")
    for name, folder in folders.items():
        if known["folders"].setdefault(name, str(folder.resolve())) != str(folder.resolve()):
            raise ValueError(f"--out {out} holds figures of {known['folders'][name]}: give another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, known)


def read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def write_json(path: Path, content: Any) -> None:
    """Write a file, complete or not at all."""
    partial = path.with_name(f".{path.name}")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
