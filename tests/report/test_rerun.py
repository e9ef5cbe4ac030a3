"""The command that a report prints runs, and makes the same config."""

from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mae.config.composing import compose
from mae.report.page import write_run_report
from mae.report.rerun import free_folder, override, rerun_command
from mae.run.pretrain import prepare
from tests.runs import job

COMMAND = ["train_pretrain.py", "-m", "seed=0,1", "run_dir=sweep"]


@given(st.text(st.characters(codec="utf-8", exclude_characters="$\n\r", exclude_categories=("Cc", "Cs")), min_size=1))
@example(r"a\'b\\")
@example("a=b,c (d) [e] {f}")
@example("null")
@example("1e3")
@settings(max_examples=20)
def test_a_text_is_read_by_hydra_as_it_is(text: str) -> None:
    parsed = OverridesParser.create().parse_override(override("run_dir", text))
    assert parsed.key_or_group == "run_dir"
    assert not parsed.is_sweep_override()
    value = parsed.value()
    assert (value.text if isinstance(value, QuotedString) else value) == text


@pytest.mark.parametrize(
    ("argv", "script", "start"),
    [
        (["train_pretrain.py", "seed=0,1", "-m"], "pretrain", ["python", "train_pretrain.py"]),
        (["some where/train_finetune.py"], "finetune", ["python", "some where/train_finetune.py"]),
        (["/bin/mae", "pretrain", "epochs=2"], "pretrain", ["mae", "pretrain"]),
        (["ipykernel_launcher.py"], "finetune", ["mae", "finetune"]),
        (
            ["train_pretrain.py", "--config-dir", "my conf", "masking=checker"],
            "pretrain",
            ["python", "train_pretrain.py", "--config-dir", "my conf"],
        ),
        (["train_pretrain.py", "-cd=conf2"], "pretrain", ["python", "train_pretrain.py", "--config-dir", "conf2"]),
    ],
)
def test_the_command_begins_as_the_run_was_begun(argv: list[str], script: str, start: list[str]) -> None:
    given = ["epochs=2", "run_dir=runs/a", "resume=true", "data.root='a b'"]
    words = shlex.split(rerun_command(argv, script, given, Path("runs/a")))
    assert words == [*start, "epochs=2", "data.root='a b'", "run_dir=runs/a_again"]


def test_its_folder_is_free(tmp_path: Path) -> None:
    assert free_folder(tmp_path / "a") == tmp_path / "a_again"
    (tmp_path / "a_again").mkdir()
    assert free_folder(tmp_path / "a") == tmp_path / "a_again_2"


def printed(folder: Path) -> list[str]:
    found = re.search(
        r"To run it again</h2>.*?<pre>(.*?)</pre>", (folder / "report.html").read_text("utf-8"), re.DOTALL
    )
    assert found is not None
    return shlex.split(html.unescape(found[1]))


def test_the_printed_command_makes_the_config_of_its_run_also_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a sweep: sys.argv says what the sweep is of, not this run.
    monkeypatch.setattr("sys.argv", COMMAND)
    folder = tmp_path / "it's a (run)"
    given = ["epochs=1", "seed=1", "model.width=32", "model.depth=1", "model.heads=2", "masking.ratio=0.6"]
    job("pretrain", folder, *given).run()
    python, script, *overrides = printed(folder)
    assert (python, script) == ("python", "train_pretrain.py")
    again = compose("pretrain", overrides)
    assert again.run_dir == f"{folder}_again"
    first = json.loads((folder / "environment.json").read_text())["overrides"]
    assert again.model_copy(update={"run_dir": None}) == compose("pretrain", first).model_copy(update={"run_dir": None})
    assert (again.seed, again.epochs) == (1, 1)

    resumed = [override("run_dir", str(folder)), "resume=true", "trainer.progress=false"]
    prepare(compose("pretrain", resumed), resumed).run()
    assert printed(folder) == [python, script, *overrides]


def test_a_run_whose_overrides_nobody_knows_prints_no_command(tmp_path: Path) -> None:
    # A baseline runs with the run that it is of; runs of earlier versions did not keep their overrides.
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    for environment in ({"overrides": None}, {}):
        (tmp_path / "environment.json").write_text(json.dumps({"command": COMMAND, "device": "a CPU", **environment}))
        page = write_run_report(tmp_path, {"stage": "pretrain"}, [], [], data_name="digits", seed=0).read_text("utf-8")
        assert "To run it again" not in page
        assert "As it was run" in page
        assert "seed: 0" in page
