"""Every config loads and is complete; every mistake gets one line that names the field."""

import ast
import importlib
import math
import pathlib
import re
import subprocess
import sys

import pytest

from configs import base
from evr1 import algorithms
from evr1 import config as config_lib

ROOT = pathlib.Path(__file__).parents[1]
_BASE = "from configs import base\ndef get_config(): c = base.get_config(); "
CONFIGS = sorted(p.stem for p in (ROOT / "configs").glob("*.py") if p.stem != "__init__")


@pytest.fixture
def config(tmp_path):
    """A config that resolves."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    c = base.get_config()
    c.workdir = str(tmp_path / "run")
    c.model = str(tmp_path)
    c.data.train = c.data.eval = str(rows)
    return c


def test_resolve_freezes_and_derives(config):
    frozen = config_lib.resolve(config)
    assert frozen.eval.max_completion_tokens == config.rollout.max_completion_tokens
    with pytest.raises(AttributeError):
        frozen.seed = 1
    assert frozen.rewards.overlong_cache_tokens == config.rollout.max_completion_tokens // 5


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        ((("a",),), "data.sources holds ('a',); give ((\"a.jsonl\", 0.7)"),
        (("a", 1.0), "data.sources holds 'a'; give"),
        ((("a", "1"),), "data.sources holds ('a', '1'); give"),
        ((("a", float("nan")),), "nan); give"),
        ((("a", 1.0), ("b", 0.0)), "gives b the weight 0.0; give"),
        ((("a", 0.5), ("b", 0.4)), "has weights of 0.9; give"),
        ((("a", 0.5), ("none", 0.5)), "none: no such file; give"),
        ((("a", 0.5), ("a", 0.5)), "holds a file twice; give"),
        ((("a", 0.5), ("./a", 0.5)), "holds a file twice; give"),
    ],
)
def test_sources_are_files_with_weights_that_add_up_to_1(
    config, tmp_path, monkeypatch, sources, says
):
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / name).write_text("{}\n")
    config.data.train = None
    config.data.sources = (("a", 0.25), ("b", 0.75))
    assert config_lib.resolve(config).data.train == ""
    config.data.sources = sources
    with pytest.raises(ValueError, match=re.escape(says)) as e:
        config_lib.resolve(config)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("source", [("a",), (1, 1.0), ("a", 0.5, 1), "a"])
def test_generated_sources_that_are_no_pairs_are_told_like_others(config, source):
    config.data.train, config.data.generate = None, True
    config.data.sources = (source,)
    with pytest.raises(ValueError, match=r"data.sources holds .*; give \(\("):
        config_lib.resolve(config)


def test_neither_rows_nor_sources_is_refused(config):
    config.data.train = None
    with pytest.raises(ValueError, match=r"data.train is not given"):
        config_lib.resolve(config)


def test_changes_are_what_differs_from_the_defaults_and_sorted(config):
    """A field that was given, one that was derived, and no field that is as it was."""
    config.rollout.n = 4
    config.optim.freeze = ("vision/.*",)
    changes = config_lib.changes(config_lib.resolve(config), base.get_config())
    assert changes == sorted(changes)
    assert {"rollout.n = 4", "optim.freeze = ('vision/.*',)"} <= set(changes)
    assert "algorithm.clip_high = 0.28" in changes
    assert f"model = {config.model!r}" in changes
    assert not any(c.startswith(("seed", "rollout.prompts", "data.video_fps")) for c in changes)
    assert config_lib.changes(base.get_config(), base.get_config()) == []


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_has_the_fields_of_base(name):
    def fields(tree, prefix=""):
        for key, value in tree.items():
            yield from (
                fields(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
            )

    module = importlib.import_module(f"configs.{name}")
    assert set(fields(module.get_config().to_dict())) == set(fields(base.get_config().to_dict()))


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("workdir", None, "config.workdir is not given; add --config.workdir=PATH"),
        ("workdir", __file__, "test_config.py, which is not a directory"),
        ("data.shards", __file__, "test_config.py, which is not a directory"),
        ("seed", -1, "config.seed is -1; need 0 to 2**32 - 1"),
        ("model", "/nowhere", "config.model is /nowhere, which is not a directory"),
        ("data.train", "/nowhere.jsonl", "config.data.train is /nowhere.jsonl: no such file"),
        ("data.source", "cached", "choose one of prefer_preprocessed, preprocessed_only"),
        ("data.video_min_pixels", 10**9, "config.data.video_min_pixels is 1000000000 with"),
        ("data.video_max_frames", 1, "config.data.video_max_frames is 1; need 2 or more"),
        ("data.max_failed_share", 1.5, "config.data.max_failed_share is 1.5"),
        ("rollout.n", 1, "a group needs at least 2 completions"),
        ("rollout.top_p", 0.9, "train on the full distribution"),
        ("rollout.window_steps", 4, "need 8 to 32"),
        ("algorithm.advantage", "vtrace", "choose one of grpo, dr_grpo, grpo_passk"),
        ("algorithm.clip_low", 1.5, "config.algorithm.clip_low is 1.5; need 0 (off) or more"),
        ("algorithm.clip_high", -0.1, "config.algorithm.clip_high is -0.1; need 0 (off) or more"),
        ("algorithm.clip_dual", 0.5, "need 0 (off) or over 1"),
        ("algorithm.policy", "gpso", "choose one of ppo, gspo, gspo_token, cispo"),
        ("algorithm.aggregation", "mean", "choose one of token_mean, sequence_mean, fixed_length"),
        ("algorithm.sapo_temperature_negative", 0.0, "need more than 0"),
        ("algorithm.temporal_bonus", -0.1, "config.algorithm.temporal_bonus is -0.1; need 0 or"),
        ("algorithm.temporal_margin", 0.0, "config.algorithm.temporal_margin is 0.0; need more"),
        ("algorithm.temporal_rollouts", -1, "config.algorithm.temporal_rollouts is -1; need 0 or"),
        ("mix.accuracy_threshold", 1.5, "config.mix.accuracy_threshold is 1.5; need 0 to 1"),
        ("mix.accuracy_threshold", -0.1, "config.mix.accuracy_threshold is -0.1; need 0 to 1"),
        ("mix.treatment", "clone", "choose one of on_policy, importance, luffy, sft"),
        ("mix.per_group", 0, "config.mix.per_group is 0; need more than 0"),
        ("mix.luffy_gamma", -1.0, "config.mix.luffy_gamma is -1.0; need more than 0"),
        ("mix.importance_clip", 0.0, "config.mix.importance_clip is 0.0; need more than 0"),
        ("mix.sft_coef", 0.0, "config.mix.sft_coef is 0.0; need more than 0"),
        ("replay.size", 0, "config.replay.size is 0; need more than 0"),
        ("replay.per_prompt", 0, "config.replay.per_prompt is 0; need more than 0"),
        ("replay.min_accuracy", 1.1, "config.replay.min_accuracy is 1.1; need 0 to 1"),
        ("algorithm.entropy_coef", -1.0, "need 0 or more"),
        ("algorithm.balance_coef", -1.0, "need 0 or more"),
        ("algorithm.ema_decay", 1.0, "a share from 0 up to"),
        ("algorithm.kl_coef", -1.0, "need 0 or more"),
        ("algorithm.kl_estimator", "k4", "choose one of k1, k2, k3, abs"),
        ("algorithm.kl_placement", "both", "choose one of loss, reward"),
        ("algorithm.kl_controller", "adaptive", "kl_controller=adaptive; give what it starts from"),
        ("algorithm.kl_horizon", 0.0, "need more than 0"),
        ("algorithm.correction", "tis", "choose one of token_tis, sequence_tis"),
        ("algorithm.correction_low", 0.5, "algorithm.correction='' does not look at it"),
        ("algorithm.updates_per_rollout", 7, "does not divide rollout.prompts=256"),
        ("data.sources", (("a.jsonl", 1.0),), "data.sources is given beside data.train="),
        ("data.curriculum", "easy", "choose one of easy_first, hard_first"),
        ("critic.trunk", "none", "choose one of own, shared"),
        ("critic.model", "/nowhere", "is /nowhere with critic.trunk=own"),
        ("critic.decay", 1.5, "critic.decay is 1.5; need 0 to 1"),
        ("critic.learning_rate", 0.0, "critic.learning_rate is 0.0; need more than 0"),
        ("mix.overlong", "cut", "choose one of refuse, truncate"),
        ("algorithm.epochs_per_rollout", 0, "epochs_per_rollout is 0; need more than 0"),
        ("algorithm.reference_decay", 1.5, "need 0 to 1"),
        ("algorithm.reference_decay", 0.9, "is 0.0 with a reference that moves"),
        ("algorithm.reference_refresh_steps", 10, "is 0.0 with a reference that moves"),
        ("algorithm.reference_refresh_steps", -1, "need 0 or more"),
        ("dynamic.max_rounds", 0, "dynamic.max_rounds is 0; need more than 0"),
        ("dynamic.min_spread", -1.0, "dynamic.min_spread is -1.0; need 0 or more"),
        ("dynamic.draw_prompts", 8, "dynamic.enabled is False while dynamic.draw_prompts"),
        ("optim.freeze", ("vision/(",), "fix the pattern"),
        ("mesh.data", -1, "-1 (the rest) at most once"),
        ("rewards.format_weight", 0.2, "two weights of 0 or more that add up to 1"),
        ("rewards.box_scale", "inches", "choose one of pixels, unit, thousand"),
        ("rewards.terms", ("length_penalty",), "config.rewards.terms holds 'length_penalty'; give"),
        ("rewards.terms", (("length_penalty", "1"),), "give pairs of name and weight"),
        ("rewards.terms", (("length_penalty", float("nan")),), "give pairs of name and weight"),
        ("rewards.terms", (("x", 1), ("x", 2)), "give each term once"),
        ("rewards.overlong_cache_tokens", 5000, "is 5000 with rollout.max_completion_tokens=4096"),
        ("rewards.overlong_cache_tokens", -1, "need more than 0 and at most the limit"),
        ("rewards.repetition_words", 0, "config.rewards.repetition_words is 0; need more than 0"),
        ("shapes.prompt_tokens", (256, 128), "need ascending sizes"),
        ("rewards.judge.backend", "gpt", "choose one of http, sampler"),
        ("rewards.judge.backend", "http", "rewards.judge.model is '' with rewards.judge.backend"),
        ("rewards.judge.backend", "sampler", "give a HF or Orbax directory"),
        ("shapes.prompt_tokens", (0, 128), "holds 0; need whole numbers over 0"),
        ("optim.freeze", (1,), "holds 1; need regular expressions"),
        ("data.video_fps", math.inf, "config.data.video_fps is inf; need a finite number"),
        ("data.template", "/nowhere", "config.data.template is /nowhere: no such file"),
        ("data.prefetch_batches", -1, "config.data.prefetch_batches is -1; need 0 or more"),
        ("data.decode_timeout_s", 1e30, "need more than 0 and at most 86400 seconds"),
        ("rollout.max_completion_tokens", 2**40, "need less than 2**31"),
        ("optim.b2", 1.0, "config.optim.b2 is 1.0; need 0 <= value < 1"),
        ("optim.min_learning_rate", 1.0, "with optim.learning_rate=1e-06; need 0 up to that"),
        ("eval.prompts", -1, "config.eval.prompts is -1; need 0 or more"),
    ],
)
def test_a_bad_value_is_refused_in_one_line(config, field, value, says):
    group = config
    *parents, leaf = field.split(".")
    for parent in parents:
        group = group[parent]
    group[leaf] = value
    with pytest.raises(ValueError, match=re.escape(says)) as e:
        config_lib.resolve(config)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("url", "localhost:8000", "config.rewards.judge.url is 'localhost:8000'; give a base URL"),
        ("types", (), "config.rewards.judge.types is empty"),
        ("timeout_s", 0, "config.rewards.judge.timeout_s is 0.0; need more than 0"),
        ("retries", -1, "config.rewards.judge.retries is -1; need 0 or more"),
    ],
)
def test_a_bad_judge_is_refused_where_there_is_one(config, field, value, says):
    judge = config.rewards.judge
    judge.model, judge.url = "m", "http://localhost:8000/v1"
    judge[field] = value
    config_lib.resolve(config)
    judge.backend = "http"
    with pytest.raises(ValueError, match=re.escape(says)):
        config_lib.resolve(config)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"correction": "token_tis", "old_logprobs": "sampler"},
            "config.algorithm.correction is token_tis with algorithm.old_logprobs=sampler; use one",
        ),
        (
            {"correction": "token_tis", "correction_low": 0.5},
            "correction_low is 0.5, but algorithm.correction='token_tis' does not look at it",
        ),
        (
            {"correction": "token_mis", "correction_low": 3.0},
            "config.algorithm.correction_high is 2.0; need more than algorithm.correction_low",
        ),
        (
            {"policy": "sapo", "clip_low": 0.2},
            "clip_low is 0.2, but algorithm.policy=sapo does not look at it; leave it out",
        ),
        (
            {"policy": "cispo", "clip_dual": 3.0},
            "clip_dual is 3.0, but algorithm.policy=cispo does not look at it",
        ),
        (
            {"advantage": "gdpo", "kl_placement": "reward", "kl_coef": 0.1},
            "which no penalty can be taken off from; use loss",
        ),
    ],
)
def test_fields_that_do_not_go_together_are_refused(config, fields, says):
    config.algorithm.update(fields)
    with pytest.raises(ValueError, match=re.escape(says)):
        config_lib.resolve(config)


@pytest.mark.parametrize("policy", algorithms.POLICIES)
def test_a_policy_brings_its_own_defaults(config, policy):
    config.algorithm.policy = policy
    a = config_lib.resolve(config).algorithm
    wanted = algorithms.POLICIES[policy]
    got = (a.clip_low, a.clip_high, a.clip_dual, a.aggregation)
    assert got == (*(x or 0.0 for x in wanted[:3]), wanted.aggregation)


def test_what_is_given_is_kept(config):
    given = {"policy": "gspo", "clip_low": 0.0, "clip_dual": 4.0, "aggregation": "token_mean"}
    config.algorithm.update(given)
    a = config_lib.resolve(config).algorithm
    assert {name: a[name] for name in given} == given
    assert a.clip_high == 4e-4


@pytest.mark.parametrize("correction", ["", *algorithms.CORRECTIONS])
def test_a_correction_brings_its_own_bounds(config, correction):
    config.algorithm.correction = correction
    a = config_lib.resolve(config).algorithm
    low, high = algorithms.CORRECTIONS[correction] if correction else (None, None)
    assert (a.correction_low, a.correction_high) == (low or 0, high or 0)


def test_the_policy_learns_too_after_the_warm_up_of_the_critic(config):
    config.num_steps, config.critic.warmup_steps = 20, 20
    config_lib.resolve(config)  # without a critic nothing is warmed up
    config.algorithm.advantage = "gae"
    says = "config.critic.warmup_steps is 20 with num_steps=20; lower it"
    with pytest.raises(ValueError, match=says):
        config_lib.resolve(config)
    config.critic.warmup_steps = 19
    config_lib.resolve(config)


@pytest.mark.parametrize("advantage", algorithms.WITHOUT_GROUPS)
def test_one_completion_a_prompt_is_enough_without_groups(config, advantage):
    config.rollout.n = 1
    config.algorithm.advantage = advantage
    assert config_lib.resolve(config).rollout.n == 1


@pytest.mark.parametrize("group", ["mix", "replay"])
def test_offline_completions_leave_one_to_the_policy(config, group):
    config.mix.per_group = config.rollout.n
    config_lib.resolve(config)  # nothing is mixed in
    config[group].enabled = True
    says = "config.mix.per_group is 8 with rollout.n=8; leave at least one completion"
    with pytest.raises(ValueError, match=says):
        config_lib.resolve(config)
    config.mix.per_group = 7
    assert config_lib.resolve(config).mix.per_group == 7


def test_offline_trajectories_as_sampled_need_recomputed_logprobs(config):
    config.algorithm.old_logprobs = "sampler"
    config.mix.enabled = True
    with pytest.raises(ValueError, match="is sampler with mix.treatment=on_policy; use recompute"):
        config_lib.resolve(config)
    config.mix.treatment = "luffy"
    assert config_lib.resolve(config).mix.treatment == "luffy"


def test_imitated_completions_leave_a_group_to_the_policy(config):
    config.mix.update({"enabled": True, "treatment": "sft", "per_group": 7})
    says = "mix.per_group is 7 with rollout.n=8, mix.treatment=sft and algorithm.advantage=grpo"
    with pytest.raises(ValueError, match=f"{says}; leave 2 completions"):
        config_lib.resolve(config)
    config.algorithm.advantage = "gae"
    config_lib.resolve(config)
    config.algorithm.advantage, config.mix.per_group = "grpo", 6
    assert config_lib.resolve(config).mix.per_group == 6


@pytest.mark.parametrize("old", ["sampler", "on_policy"])
@pytest.mark.parametrize("group", ["mix", "replay"])
def test_a_penalty_of_offline_completions_needs_recomputed_logprobs(config, group, old):
    config.algorithm.update({"kl_coef": 0.1, "kl_placement": "reward", "old_logprobs": old})
    config.mix.treatment = "luffy"
    assert config_lib.resolve(config).algorithm.old_logprobs == old  # nothing is mixed in
    config[group].enabled = True
    says = f"old_logprobs is {old} with algorithm.kl_placement=reward and offline completions"
    with pytest.raises(ValueError, match=f"{says}; use recompute"):
        config_lib.resolve(config)
    config.algorithm.kl_placement = "loss"
    assert config_lib.resolve(config).algorithm.old_logprobs == old


def test_dynamic_sampling_needs_a_spread(config):
    config.rollout.n, config.dynamic.enabled = 1, True
    config.algorithm.advantage = "gae"
    says = "dynamic.enabled is True with rollout.n=1 and algorithm.advantage=gae; draw at least 2"
    with pytest.raises(ValueError, match=says):
        config_lib.resolve(config)
    config.algorithm.advantage = "remax"  # its greedy completion is a second
    assert config_lib.resolve(config).dynamic.enabled


@pytest.mark.parametrize("threshold", [None, 0.0, 1.0])
def test_every_accuracy_may_be_a_threshold(config, threshold):
    config.mix.accuracy_threshold = threshold
    assert config_lib.resolve(config).mix.accuracy_threshold == threshold


@pytest.mark.parametrize(("n", "given", "rollouts"), [(8, 0, 4), (7, 0, 3), (8, 6, 6)])
def test_half_as_many_completions_are_drawn_on_shuffled_frames(config, n, given, rollouts):
    config.rollout.n, config.algorithm.temporal_rollouts = n, given
    assert config_lib.resolve(config).algorithm.temporal_rollouts == rollouts


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--config=configs/base.py", "--config.num_stepz=3"], "num_stepz"),
        (["--config=configs/base.py", "--config.data.fps=3"], "fps"),
        (["--config=configs/nothing.py"], "--config=configs/nothing.py: no such file; give a conf"),
        (["--config", "configs/nothing.py:debug"], "--config=configs/nothing.py: no such file"),
        (["--config=configs"], "--config=configs: no such file; give a config file, e.g."),
        (["--config="], "--config is not given; give a config file, e.g. --config=configs/demo.py"),
        (["--config.seed=3"], "--config is not given; give"),
        ([], "--config is not given; give"),
        (["--config=configs/base.py"], "config.workdir is not given"),
        (["--config=configs/base.py", "--config.num_steps=many"], "many"),
        (["--config=configs/base.py:argument"], "get_config() takes 0 positional arguments"),
        (["--config=configs/base.py", "spare"], "unexpected argument 'spare'"),
        (["--config=README.md"], "SyntaxError"),
        (["--config={}", "def get_config(): return 1 / 0"], "division by zero"),
        (["--config={}", "def get_config(): return 1"], "'int' object"),
        (["--config={}", _BASE + "c.data.fsp = 3; return c"], "fsp"),
    ],
)
def test_bad_flags_end_in_an_error_not_a_traceback(flags, says, tmp_path):
    if flags and "{}" in flags[0]:
        (tmp_path / "config.py").write_text(flags[1])
        flags = [flags[0].format(tmp_path / "config.py")]
    command = [sys.executable, "-m", "evr1.main", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert says in line


def test_help_is_no_error():
    command = [sys.executable, "-m", "evr1.main", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--config.FIELD=VALUE" in done.stdout


def test_nobody_reads_a_config_with_get():
    """`config.get("typo", default)` gives the default without a word."""
    for path in [*ROOT.glob("evr1/*.py"), *ROOT.glob("tools/*.py"), *ROOT.glob("configs/*.py")]:
        source = path.read_text()
        for node in ast.walk(ast.parse(source)) if "ml_collections" in source else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                of = ast.unparse(node.func.value)
                assert not (node.func.attr == "get" and re.match(r"(c|config)\b", of)), path


def test_import_pulls_in_no_framework():
    unwanted = ("torch", "tensorflow", "jax")
    code = f"import sys, evr1, evr1.main; print([m for m in {unwanted} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
