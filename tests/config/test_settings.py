"""Settings have base.py's fields, and hold values of their types once a config is resolved."""

import ast
import dataclasses
import importlib
import inspect
import json
import re
import types
import typing

import ml_collections
import pytest
from repo import ROOT

from configs import base
from evr1.config import Settings, resolve
from evr1.config.checks import Section

CONFIGS = sorted(
    p.stem
    for p in (ROOT / "configs").glob("*.py")
    if p.stem not in ("__init__", "eval_video")  # of benchmarks: fields of their own
)


def config_fields():
    """The fields that get_config() makes, in its order: seed, ..., data.train, ..."""
    names = []
    for node in ast.walk(ast.parse(inspect.getsource(base.get_config))):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            is_section = ast.unparse(node.value) == "ml_collections.ConfigDict()"
            name = ast.unparse(node.targets[0]).removeprefix("c.")
            names += [] if is_section else [name]
    return names


def settings_fields(kind=Settings, prefix=""):
    for name, hint in typing.get_type_hints(kind).items():
        is_section = isinstance(hint, type) and issubclass(hint, Section)
        yield from settings_fields(hint, f"{prefix}{name}.") if is_section else [prefix + name]


def resolved(name, tmp_path, *, has_paths=True):
    """A file of configs/, resolved, with the paths that it leaves open or without them."""
    c = importlib.import_module(f"configs.{name}").get_config()
    if has_paths:
        rows = tmp_path / "rows.jsonl"
        rows.write_text("{}\n")
        c.workdir, c.model = str(tmp_path / "run"), str(tmp_path)
        if not c.data.generate:
            c.data.train = str(rows)
    return resolve(c, has_paths=has_paths)


def test_the_fields_are_those_of_base_in_its_order():
    tree = base.get_config().to_dict()
    assert len(config_fields()) == sum(
        len(v) - ("judge" in v) + len(v.get("judge", ())) if isinstance(v, dict) else 1
        for v in tree.values()
    )
    assert list(settings_fields()) == config_fields()


@pytest.mark.parametrize("has_paths", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_resolves_to_values_of_the_declared_types(name, has_paths, tmp_path):
    def check(value, hint, field):
        if isinstance(hint, types.UnionType):
            assert isinstance(value, hint), field
        elif typing.get_origin(hint) is tuple:
            assert type(value) is tuple, field
            first, *rest = typing.get_args(hint)
            hints = [first] * len(value) if rest == [...] else [first, *rest]
            for item, one in zip(value, hints, strict=True):
                check(item, one, field)
        elif issubclass(hint, Section):
            assert type(value) is hint
            for part, one in typing.get_type_hints(hint).items():
                check(getattr(value, part), one, f"{field}.{part}")
        else:
            assert type(value) is hint, field

    check(resolved(name, tmp_path, has_paths=has_paths), Settings, "config")


@pytest.mark.parametrize("name", CONFIGS)
def test_paths_change_nothing_but_paths(name, tmp_path):
    """What tools/plan.py plans is what a run with this config does."""
    plan, run = resolved(name, tmp_path, has_paths=False), resolved(name, tmp_path)
    paths = {"train": "", "eval": "", "media_dir": "", "shards": "", "sources": ()}
    same = dataclasses.replace(run, workdir="", data=dataclasses.replace(run.data, **paths))
    expected = dataclasses.replace(plan, workdir="", data=dataclasses.replace(plan.data, **paths))
    assert dataclasses.replace(same, model=plan.model) == expected


def test_settings_are_frozen_in_every_section(tmp_path):
    settings = resolved("base", tmp_path)
    for section in (settings, *vars(settings).values(), settings.rewards.judge):
        if isinstance(section, Section):
            name = next(iter(vars(section)))
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(section, name, 1)
            with pytest.raises(AttributeError):  # no field is born later
                section.new = 1


def test_every_section_has_checks_of_its_own(tmp_path):
    settings = resolved("base", tmp_path)
    for section in vars(settings).values():
        if isinstance(section, Section):
            assert "check" in vars(type(section)), type(section)


def test_lists_become_tuples_all_the_way_down(tmp_path):
    c = base.get_config()
    rows = [tmp_path / name for name in ("a", "b")]
    for path in rows:
        path.write_text("{}\n")
    c.workdir, c.model = str(tmp_path / "run"), str(tmp_path)
    c.data.sources = tuple([str(path), 0.5] for path in rows)
    settings = resolve(c)
    assert settings.data.sources == ((str(rows[0]), 0.5), (str(rows[1]), 0.5))
    assert json.loads(json.dumps(settings.to_dict()))["data"]["sources"][0] == [str(rows[0]), 0.5]


def test_what_is_written_is_sorted_at_every_depth(tmp_path):
    def check(tree):
        assert list(tree) == sorted(tree)
        for value in tree.values():
            if isinstance(value, dict):
                check(value)

    check(resolved("demo", tmp_path).to_dict())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"data.video_fsp": 2.0},
            'config.data.video_fsp: no such field; did you mean "data.video_fps"?',
        ),
        (
            {"rewards.judge.modle": ""},
            'config.rewards.judge.modle: no such field; did you mean "rewards.judge.model"?',
        ),
        ({"quantum": 1}, "config.quantum: no such field; evr1/config/base.py has every field"),
        (
            {"rollout.n": ...},
            "the config has no field rollout.n; start from get_config() of evr1/config/base.py",
        ),
        ({"data": ...}, "the config has no field data; start from get_config()"),
        ({"data": 3}, "config.data is 3; need a section of fields"),
        ({"rollout.n": "8"}, "config.rollout.n is '8'; need a whole number"),
        ({"rollout.n": True}, "config.rollout.n is True; need a whole number"),
        ({"rollout.n": None}, "config.rollout.n is None; need a whole number"),
        ({"canaries": 1}, "config.canaries is 1; need True or False"),
        ({"optim.freeze": "vision"}, "config.optim.freeze is 'vision'; need a tuple"),
        ({"log.wandb": None}, "config.log.wandb is None; need a text, '' for none"),
    ],
)
def test_a_field_that_is_not_as_in_base_is_one_line(change, says):
    """Of a config that was put together by hand: one from base.py refuses most of these itself."""
    fields = base.get_config().to_dict()
    for name, value in change.items():
        *parents, leaf = name.split(".")
        group = fields
        for parent in parents:
            group = group[parent]
        group[leaf] = value
        if value is ...:
            del group[leaf]
    c = ml_collections.ConfigDict(fields)
    with pytest.raises(ValueError, match="^" + re.escape(says)) as e:
        resolve(c, has_paths=False)
    assert "\n" not in str(e.value)


def test_a_whole_number_for_a_float_is_one(tmp_path):
    fields = base.get_config().to_dict()
    fields["data"]["video_fps"] = 3
    c = ml_collections.ConfigDict(fields)
    fps = resolve(c, has_paths=False).data.video_fps
    assert (fps, type(fps)) == (3.0, float)


def test_a_plan_is_checked_too_but_for_files():
    c = base.get_config()
    c.critic.model = c.data.template = "/nowhere"
    c.rewards.judge.update({"backend": "sampler", "model": "/nowhere"})
    resolve(c, has_paths=False)
    c.rollout.n = 1
    with pytest.raises(ValueError, match="a group needs at least 2 completions"):
        resolve(c, has_paths=False)
