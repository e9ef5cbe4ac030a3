from __future__ import annotations

import sys

import pytest

from mae.components.registry import Part, Registry
from mae.masking.samplers import MASKINGS, MaskSampler, RandomCorruption, RandomMasking
from mae.models.backbones.create_backbone import BACKBONES
from mae.models.decoders import DECODERS
from mae.objectives.objective import OBJECTIVES
from tests.outside import ColumnMasking

COLUMNS = "tests.outside.ColumnMasking"


def test_every_registered_path_leads_to_a_class_of_its_kind() -> None:
    for registry in (MASKINGS, DECODERS, OBJECTIVES, BACKBONES):
        assert len(list(registry)) > 0
        assert all(issubclass(registry.resolve(name), registry.base) for name in registry)


def test_a_class_is_found_by_name_or_by_path() -> None:
    assert MASKINGS.resolve("corruption") is RandomCorruption
    assert MASKINGS.resolve(target=COLUMNS) is ColumnMasking
    assert MASKINGS.resolve("random", COLUMNS) is ColumnMasking
    assert "random" in MASKINGS and "blocks" not in MASKINGS


def test_what_is_made_knows_what_makes_it_again() -> None:
    for made in (
        MASKINGS.create(name="corruption", options={"ratio": 0.25, "swapped": 0.2}),
        MASKINGS.create(target=COLUMNS, options={"columns": 2}),
        MASKINGS.create(name="random"),
    ):
        again = MASKINGS.create(**Part.of(made.config)._asdict())
        assert type(again) is type(made) and vars(again) == vars(made)
    assert MASKINGS.create(target=COLUMNS).config == {"_target_": COLUMNS}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"name": "rondom"},
            r"masking\.name='rondom' is unknown: did you mean random\? It is one of random, corruption",
        ),
        (
            {"name": "qqq"},
            r"is unknown: choose one of random, corruption, block, grid, weighted, or masking\._target_=package\.module\.",
        ),
        ({"name": None}, r"masking\.name=None is unknown"),
        (
            {"target": "no.such.module.Class"},
            r"masking\._target_='no\.such\.module\.Class' cannot be imported: No module",
        ),
        ({"target": "tests.outside.Rows"}, r"'tests\.outside\.Rows' cannot be imported: .*no attribute 'Rows'"),
        ({"target": "two words"}, r"cannot be imported: invalid format"),
        (
            {"target": "os.system"},
            r"masking\._target_='os\.system' is no class that derives from .*samplers\.MaskSampler$",
        ),
        ({"target": "tests.outside.MeanDecoder"}, r"is no class that derives from .*MaskSampler"),
        (
            {"name": "random", "options": {"rtio": 0.5}},
            r"^masking\.rtio=0\.5 is not an option of masking=random: did you mean masking\.ratio\?$",
        ),
        (
            {"target": COLUMNS, "options": {"x": 1}},
            r"masking\.x=1 is not an option of masking=tests\.outside\.ColumnMasking: its options are masking\.columns",
        ),
        ({"name": "random", "options": {"ratio": "x"}}, r"^masking\.ratio='x' is not a number$"),
        ({"name": "random", "options": {"ratio": None}}, r"^masking\.ratio=None is not a number$"),
        ({"target": COLUMNS, "options": {"columns": 1.5}}, r"^masking\.columns=1\.5 is not a whole number$"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line(given: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        MASKINGS.create(**given)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_a_path_that_a_file_names_is_never_called_unless_it_is_such_a_class() -> None:
    registry: Registry[MaskSampler] = Registry("masking", MaskSampler, {"exit": "sys.exit"})  # type: ignore[type-abstract]
    for config in ({"name": "exit"}, {"_target_": "sys.exit"}, {"_target_": "builtins.dict"}):
        with pytest.raises(ValueError, match="is no class that derives from"):
            registry.create(**Part.of(config)._asdict())


def test_a_module_in_the_current_folder_is_found(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "masks_of_mine.py").write_text(
        "from mae.masking.samplers import RandomMasking\nclass Mine(RandomMasking): ...\n"
    )
    (tmp_path / "broken_of_mine.py").write_text("raise RuntimeError('first line\\nsecond')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])

    mine = MASKINGS.create(target="masks_of_mine.Mine", options={"ratio": 0.5})

    assert isinstance(mine, RandomMasking) and mine.ratio == 0.5
    with pytest.raises(ValueError, match=r"'broken_of_mine\.Mine' cannot be imported: first line; give"):
        MASKINGS.create(target="broken_of_mine.Mine")
