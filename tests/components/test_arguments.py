from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pytest

from mae.components.arguments import MISSING, Argument, arguments, takes_anything
from mae.models.backbones.encoder import Encoder
from mae.models.decoders import SelfAttentionDecoder


class Part:
    """A part.

    Args:
        given: Positional, which is no option.
        ratio: A share,
            in two lines.
        names (dict): By type too.

    Raises:
        ratio: Nothing.
    """

    def __init__(
        self,
        given: int,
        ratio: float = 0.5,
        *,
        names: Mapping[str, int] | None = None,
        kind: Literal["a", "b"],
        size: int | None = None,
        flag: bool = False,
        sides: tuple[int, int] = (1, 1),
        free=None,
    ) -> None: ...


class Open:
    def __init__(self, **rest: Any) -> None: ...


def test_the_options_of_a_class_are_its_keywords_with_types_defaults_and_help() -> None:
    assert arguments(Part) == [
        Argument("ratio", float, 0.5, "A share, in two lines."),
        Argument("names", Mapping[str, int] | None, None, "By type too."),
        Argument("kind", Literal["a", "b"], MISSING, ""),
        Argument("size", int | None, None, ""),
        Argument("flag", bool, False, ""),
        Argument("sides", tuple[int, int], (1, 1), ""),
        Argument("free", Any, None, ""),
    ]
    assert not takes_anything(Part) and takes_anything(Open) and arguments(Open) == []


def test_those_of_this_project_all_have_a_line_of_help() -> None:
    for kind in (SelfAttentionDecoder, Encoder):
        assert all(argument.help for argument in arguments(kind)), kind
    assert [argument.name for argument in arguments(SelfAttentionDecoder)][:3] == ["width", "depth", "heads"]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ratio", "x", "p.ratio='x' is not a number"),
        ("ratio", "0.5", "p.ratio='0.5' is not a number"),
        ("ratio", True, "p.ratio=True is not a number"),
        ("ratio", None, "p.ratio=None is not a number"),
        ("size", "3", "p.size='3' is not a whole number"),
        ("size", 3.0, "p.size=3.0 is not a whole number"),
        ("flag", 1, "p.flag=1 is not true or false"),
        ("kind", "c", "p.kind='c' is not right: input should be 'a' or 'b'"),
        ("names", 3, "p.names=3 is not right: input should be a valid "),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, value: Any, says: str) -> None:
    (argument,) = (part for part in arguments(Part) if part.name == name)
    with pytest.raises(ValueError, match=says):
        argument.check(value, f"p.{name}")


def test_values_of_the_type_pass_whole_numbers_for_numbers_too() -> None:
    good = {"ratio": 1, "names": None, "kind": "b", "size": 3, "flag": True, "sides": [2, 3], "free": object()}
    for argument in arguments(Part):
        argument.check(good[argument.name], argument.name)
