"""Plain values to a typed config: whatever stands there, a person reads one line."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mae.config.composing import compose_values
from mae.config.keys import Key, keys_of
from mae.config.reading import ROOTS, leaves, read_config
from mae.config.schema.fields import chosen_by

VARIANTS = [
    *(("pretrain", f"data={name}") for name in ("digits", "torchvision", "arrays", "webdataset", "huggingface")),
    *(("finetune", f"data={name}") for name in ("folder", "image_folder", "segmentation_folder")),
    *(("finetune", f"protocol={name}") for name in ("linear_probe", "mlp_probe", "attentive_probe", "features")),
    *(("finetune", f"protocol={name}") for name in ("finetune", "partial_finetune", "dense")),
    ("finetune", "task=segmentation"),
    ("pretrain", "logger=wandb"),
]
COMPONENTS = ("model.", "masking.", "decoder.", "objective.")


@functools.cache
def composed(root: str, option: str) -> dict[str, Any]:
    return compose_values(root, [option])


@functools.cache
def every_key() -> list[tuple[str, str, Key]]:
    """Return (root, option, key) of every key of the schema."""
    found: dict[str, tuple[str, str, Key]] = {}
    for root, option in VARIANTS:
        for key in keys_of(read_config(ROOTS[root], composed(root, option))):
            if not key.name.startswith(COMPONENTS):
                found.setdefault(f"{option.partition('=')[0]}:{key.name}:{key.kind}:{key.help}", (root, option, key))
    return list(found.values())


def refused(root: str, option: str, **changes: Any) -> str | None:
    """Return what a person reads of values with changes (dots are ``__``); None where they pass."""
    values = copy.deepcopy(composed(root, option))
    for key, value in changes.items():
        *groups, leaf = key.split("__")
        node = values
        for group in groups:
            node = node[group]
        node[leaf] = value
    try:
        read_config(ROOTS[root], values)
    except ValueError as error:
        assert "\n" not in str(error)
        return str(error)
    return None


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=2)), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.sampled_from([float("nan"), float("inf"), -1, 0, 1.5, 10**30, "null", b"bytes", (1, 2), {1}]),
)


def quiet_name(key: str) -> str:
    return key.replace(".", "__")


@settings(max_examples=200)
@given(st.data(), ANYTHING)
def test_whatever_stands_at_a_key_passes_or_is_one_line_that_names_the_key(data: st.DataObject, value: Any) -> None:
    root, option, key = data.draw(st.sampled_from(every_key()))
    message = refused(root, option, **{quiet_name(key.name): value})
    assert message is None or message.startswith(key.name), message


@given(ANYTHING)
def test_whatever_stands_in_place_of_a_group_is_one_line_that_names_it(value: Any) -> None:
    for group in ("data", "model", "optim", "trainer", "logger", "callbacks", "protocol", "task", "debug"):
        message = refused("finetune", "protocol=finetune", **{group: value})
        # Any argument of the model's class may pass, and debug's keys have defaults.
        assert message is not None or group == "model" or (group == "debug" and value == {})
        assert message is None or message.startswith(group), message


def test_a_wrong_type_no_number_and_a_value_out_of_range_are_refused_at_every_key() -> None:
    for root, option, key in every_key():
        name, kind = quiet_name(key.name), key.kind
        wrong: list[Any] = [{"a": {"mapping": 1}}]
        if "text" not in kind and key.name not in ("trainer.devices",):
            wrong.append("no such word")
        if "number" in kind:
            wrong += [float("nan"), float("inf")]
        for sign, step in ((">=", -1), ("<=", 1), (">", 0), ("<", 0)):
            bound = kind.partition(f" {sign} ")[2].partition(" ")[0]
            if bound:
                wrong.append(type(key.value)(float(bound) + step) if key.value is not None else float(bound) + step)
        for value in wrong:
            assert refused(root, option, **{name: value}) is not None, (key, value)


def test_null_is_refused_where_nothing_chooses_a_value() -> None:
    for root, option, key in every_key():
        message = refused(root, option, **{quiet_name(key.name): None})
        if key.filled_by is not None or "null" in key.kind:
            assert message is None, message
        elif key.name not in ("data.source", "protocol.name", "task.name", "logger.name"):
            assert message == f"{key.name}=null is not a value, and nothing chooses one"


def test_every_key_says_what_it_means() -> None:
    for _, _, key in every_key():
        assert len(key.help) > 3, key


def test_every_null_of_the_defaults_says_what_fills_it_or_what_it_means() -> None:
    for _, _, key in every_key():
        if key.value is None and key.filled_by is None:
            assert "null" in key.kind, key


def test_every_wrong_value_is_named_at_once() -> None:
    # One error a try, with a wait of an hour in the queue before each, is how a day is lost.
    message = refused(
        "pretrain",
        "data=digits",
        epochs=0,
        batch_size="many",
        optim__base_lr=-1,
        data__image_size=[1, 2, 3],
        data__num_workers=1.5,
        seed=True,
        sede=1,
    )
    assert message is not None
    for part in (
        "epochs=0 is less than 1",
        "batch_size='many' is not a whole number",
        "optim.base_lr=-1 is less than 0",
        "data.image_size=[1, 2, 3] is neither a side nor [height, width] in pixels",
        "data.num_workers=1.5 is not a whole number",
        "seed=True is not a whole number",
        "sede is not an option here",
    ):
        assert part in message


WRONG = [
    (
        "finetune",
        "protocol=mlp_probe",
        {"protocol__activation": "swish"},
        "protocol.activation='swish' is unknown: choose",
    ),
    ("finetune", "protocol=finetune", {"protocol__ema": 1}, "protocol.ema=1 is not below 1"),
    ("finetune", "protocol=finetune", {"protocol__rand_augment": 11}, "protocol.rand_augment=11 is more than 10"),
    ("finetune", "protocol=finetune", {"protocol__erasing": 2}, "protocol.erasing=2 is more than 1"),
    ("finetune", "protocol=finetune", {"protocol__mixup": -1}, "protocol.mixup=-1 is less than 0"),
    (
        "finetune",
        "protocol=finetune",
        {"protocol__pool": "all"},
        "protocol.pool='all' is unknown: choose one of mean, token",
    ),
    (
        "finetune",
        "protocol=linear_probe",
        {"protocol__sweep": "perhaps"},
        "protocol.sweep='perhaps' is neither true nor false",
    ),
    (
        "finetune",
        "protocol=linear_probe",
        {"protocol__sweep_factors": "many"},
        "protocol.sweep_factors='many' is not a list",
    ),
    (
        "finetune",
        "protocol=linear_probe",
        {"protocol__name": "linear"},
        "protocol.name='linear' is unknown: choose",
    ),
    ("finetune", "protocol=linear_probe", {"baselines": "perhaps"}, "baselines='perhaps' is neither true nor false"),
    ("finetune", "protocol=features", {"protocol__draws": 0}, "protocol.draws=0 is less than 1"),
    ("finetune", "protocol=features", {"protocol__draws": "few"}, "protocol.draws='few' is not a whole number"),
    (
        "pretrain",
        "data=digits",
        {"optim__name": "adam"},
        "optim.name='adam' is unknown: choose one of adamw, sgd, lars",
    ),
    ("pretrain", "data=digits", {"optim__betas": 3}, "optim.betas=3 is not a list"),
    ("pretrain", "data=digits", {"optim__betas": [0.9]}, "optim.betas=[0.9] has 1 values: give 2"),
    (
        "pretrain",
        "data=digits",
        {"logger__name": "tensorboard"},
        "logger.name='tensorboard' is unknown: choose one of csv, wandb",
    ),
    ("pretrain", "data=digits", {"data__min_scale": 2}, "data.min_scale=2 is more than 1"),
    ("pretrain", "data=digits", {"data__min_scale": "wide"}, "data.min_scale='wide' is not a number"),
    ("pretrain", "data=digits", {"data__flip": "perhaps"}, "data.flip='perhaps' is neither true nor false"),
    ("pretrain", "data=digits", {"data__source": None}, "data.source='None' is unknown: choose one of digits"),
]


def test_what_means_nothing_is_said_in_these_words() -> None:
    for root, option, changes, wanted in WRONG:
        message = refused(root, option, **changes)
        assert message is not None and message.startswith(wanted), message


def test_leaves_are_dotted() -> None:
    assert leaves({"a": 1, "b": {"c": {"d": [1]}, "e": {}}}) == {"a": 1, "b.c.d": [1], "b.e": {}}


def test_what_fills_a_null_is_said_of_chosen_keys_alone() -> None:
    fields = ROOTS["pretrain"].model_fields
    assert chosen_by(fields["epochs"]) is not None
    assert chosen_by(fields["seed"]) is None


@pytest.mark.parametrize("root", ROOTS)
def test_what_a_config_holds_reads_again_as_the_same(root: str) -> None:
    for stage, option in VARIANTS:
        if stage == root:
            config = read_config(ROOTS[root], composed(root, option))
            assert read_config(ROOTS[root], config.plain()) == config
