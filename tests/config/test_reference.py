"""The reference of config fields: complete, up to date, and what is said about a misspelt one."""

import pytest
from absl import flags
from repo import ROOT

from configs import base
from evr1.config import command, evals, reference
from evr1.config.resolve import _fields


@pytest.mark.parametrize(
    ("table", "config"),
    [(reference.base_table(), base.get_config()), (reference.evals_table(), evals.get_config())],
)
def test_every_field_is_there_once_with_its_default(table, config):
    names = [field.name for field in table.fields]
    actual = _fields("", config.to_dict())
    assert sorted(names) == sorted(actual)
    for field in table.fields:
        value = actual[field.name]
        shown = field.default.partition(",")[0] if value is None else field.default
        assert shown == repr(value), field


def test_the_page_is_what_the_sources_say():
    """Made anew by `python -m evr1.config.reference > docs/config.md`."""
    assert (ROOT / "docs" / "config.md").read_text("utf-8") == reference.page()


def test_comments_above_and_beside_a_field_belong_to_it():
    source = (
        "def get_config():\n    # Of the group.\n    c.a = ml_collections.ConfigDict()\n"
        "    # Above,\n    # in two lines.\n    c.a.x = (\n        1,  # beside\n    )\n"
        "    c.a.y = config_dict.placeholder(float)\n"
    )
    assert reference.read(source) == reference.Table(
        [
            reference.Field("a.x", "(1,)", "Above, in two lines. beside"),
            reference.Field("a.y", "None, or number", ""),
        ],
        {"a": "Of the group."},
    )


def test_help_of_a_group():
    lines = reference.help_of("mix").splitlines()
    assert lines[0].startswith("Offline trajectories")
    assert lines[lines.index("--config.mix.luffy_gamma=0.1") + 1].startswith("    of luffy")
    assert "optim: learning_rate, schedule" in reference.overview()
    with pytest.raises(ValueError, match="--help=optm: no such group; did you mean optim"):
        reference.help_of("optm")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "flag --config.rollout.n=abc: invalid literal",
            "config.rollout.n: got 'abc'; need a whole number, such as 8",
        ),
        (
            "flag --config.data.shuffle=maybe: ('Non-boolean argument', 'maybe')",
            "config.data.shuffle: got 'maybe'; need True or False, such as True",
        ),
        (
            "flag --config.algorithm.clip_low=x: could not convert",
            "config.algorithm.clip_low: got 'x'; need None, or number",
        ),
        (
            "flag --config.mix=3: Failed to parse",
            "config.mix: got '3'; it is a group: set one of its fields, such as "
            "--config.mix.enabled=False",
        ),
        ("flag --part=3: something else", "flag --part=3: something else"),
    ],
)
def test_a_value_of_another_type_is_told_with_what_is_needed(line, said):
    assert command._flag_error(flags.IllegalFlagValueError(line), []) == said


@pytest.mark.parametrize(
    ("error", "argv", "said"),
    [
        (
            AttributeError("'rolout'"),
            ["--config.rolout.n=3"],
            "unknown config field --config.rolout.n; did you mean --config.rollout.n?; ",
        ),
        (
            KeyError("max_promt_tokens"),
            ["--config.data.max_promt_tokens=3"],
            "--config.data.max_promt_tokens; did you mean --config.data.max_prompt_tokens?; ",
        ),
        (
            flags.UnrecognizedFlagError("confg.seed", ""),
            [],
            "unknown flag --confg.seed; did you mean --config.seed?",
        ),
    ],
)
def test_names_that_are_near_are_told(error, argv, said):
    assert said in command._flag_error(error, argv)


def test_an_unknown_field_of_a_config_file_is_told_with_near_names():
    config = base.get_config()
    with pytest.raises((AttributeError, KeyError)) as locked:
        config.num_stepz = 6
    said = command._flag_error(locked.value, ["evr1", "--config=my.py"])
    assert said.startswith(
        "the config file sets the unknown field num_stepz; did you mean num_steps"
    )
