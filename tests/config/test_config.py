"""Every config loads and is complete; every mistake gets one line that names the field."""

import importlib
import math
import re
import subprocess
import sys

import pytest
from repo import ROOT

from configs import base
from evr1.config import algorithms, changes, resolve
from evr1.config.learner import learner_settings

_BASE = "from configs import base\ndef get_config(): c = base.get_config(); "
CONFIGS = sorted(
    p.stem
    for p in (ROOT / "configs").glob("*.py")
    if p.stem not in ("__init__", "eval_video")  # of benchmarks: fields of their own
)


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
    frozen = resolve(config)
    assert frozen.eval.max_completion_tokens == config.rollout.max_completion_tokens
    assert frozen.eval.benchmark_max_tokens == config.rollout.max_completion_tokens
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
    assert resolve(config).data.train == ""
    config.data.sources = sources
    with pytest.raises(ValueError, match=re.escape(says)) as e:
        resolve(config)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("source", [("a",), (1, 1.0), ("a", 0.5, 1), "a"])
def test_generated_sources_that_are_no_pairs_are_told_like_others(config, source):
    config.data.train, config.data.generate = None, True
    config.data.sources = (source,)
    with pytest.raises(ValueError, match=r"data.sources holds .*; give \(\("):
        resolve(config)


def test_neither_rows_nor_sources_is_refused(config):
    config.data.train = None
    with pytest.raises(ValueError, match=r"data.train is not given"):
        resolve(config)


def test_changes_are_what_differs_from_the_defaults_and_sorted(config):
    """Fields that were given, none that follows from others, and no field that is as it was."""
    config.rollout.n = 4
    config.rewards.overlong_cache_tokens = 7
    config.eval.max_completion_tokens = config.rollout.max_completion_tokens  # as without it
    config.optim.freeze = ("vision/.*",)
    lines = changes(resolve(config), base.get_config())
    assert lines == sorted(lines)
    assert {"rollout.n = 4", "optim.freeze = ('vision/.*',)"} <= set(lines)
    assert "rewards.overlong_cache_tokens = 7" in lines
    assert not any(c.startswith(("algorithm.", "eval.", "data.eval = ''")) for c in lines)
    assert f"model = {config.model!r}" in lines
    assert not any(c.startswith(("seed", "rollout.prompts", "data.video_fps")) for c in lines)


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
        ("algorithm.passk", 2, "passk is 2 with algorithm.advantage=grpo; only grpo_passk looks"),
        ("algorithm.discount", 0.9, "discount is 0.9 with algorithm.advantage=grpo; only reinfor"),
        ("algorithm.discount", 0.0, "config.algorithm.discount is 0.0; need more than 0, up to 1"),
        ("algorithm.aggregation_divisor", 8.0, "aggregation=token_mean does not look at it"),
        ("algorithm.entropy_share", 0.0, "entropy_share is 0.0; need more than 0, up to 1"),
        ("algorithm.entropy_share", 1.5, "entropy_share is 1.5; need more than 0, up to 1"),
        ("algorithm.covariance", "both", "choose one of clip, kl"),
        ("algorithm.covariance_share", 0.0, "covariance_share is 0.0; need more than 0, up to 1"),
        ("algorithm.covariance_low", 6.0, "need less than algorithm.covariance_high"),
        ("algorithm.covariance_coef", 0.0, "covariance_coef is 0.0; need more than 0"),
        ("algorithm.off_policy_bound", -0.5, "off_policy_bound is -0.5; need 0 or more"),
        ("algorithm.kl_gradient", "exact", "choose one of own, k2, importance"),
        ("algorithm.kl_gradient", "k2", "with algorithm.kl_coef=0.0 and algorithm.kl_placement=l"),
        ("algorithm.entropy_controller", "pid", "choose one of fixed, adaptive"),
        ("algorithm.entropy_target", 0.0, "entropy_target is 0.0; need more than 0"),
        ("algorithm.entropy_step", 0.0, "entropy_step is 0.0; need more than 0"),
        ("algorithm.correction_floor", 0.5, "is 0.5 with algorithm.correction=''; only token_tis"),
        ("algorithm.correction_floor", -0.5, "correction_floor is -0.5; need 0 or more"),
        ("algorithm.correction_normalized", True, "is True, but algorithm.correction is empty"),
        ("algorithm.rejection", "seq", "choose one of token, sequence, geometric"),
        ("algorithm.rejection_low", 0.5, "is 0.5, but algorithm.rejection is empty; choose a"),
        ("algorithm.veto", 1.0, "config.algorithm.veto is 1.0; need 0 (off), or less than 1"),
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
        ("eval.benchmarks", ("lvbench",), "config.eval.benchmarks holds 'lvbench'; need pairs"),
        ("eval.benchmarks", (("a", "b", 1),), "holds ('a', 'b', 1); need pairs"),
        ("eval.benchmark_limit", 0, "config.eval.benchmark_limit is 0; need more than 0"),
        ("eval.benchmark_max_tokens", -1, "benchmark_max_tokens is -1; need 0 or more"),
    ],
)
def test_a_bad_value_is_refused_in_one_line(config, field, value, says):
    group = config
    *parents, leaf = field.split(".")
    for parent in parents:
        group = group[parent]
    group[leaf] = value
    with pytest.raises(ValueError, match=re.escape(says)) as e:
        resolve(config)
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
    resolve(config)
    judge.backend = "http"
    with pytest.raises(ValueError, match=re.escape(says)):
        resolve(config)


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
            {"advantage": "grpo_passk", "passk": 9},
            "config.algorithm.passk is 9 with rollout.n=8; need 0 (rollout.n), or 2 up to",
        ),
        (
            {"advantage": "grpo_passk", "passk": 1},
            "config.algorithm.passk is 1 with rollout.n=8; need 0 (rollout.n), or 2 up to",
        ),
        (
            {"aggregation": "token_sum", "aggregation_divisor": 0.5},
            "aggregation_divisor is 0.5; need 0 (its default), or 1 or more",
        ),
        (
            {"entropy_share": 0.2, "old_logprobs": "sampler"},
            "old_logprobs is sampler with algorithm.entropy_share=0.2; use recompute",
        ),
        (
            {"covariance": "kl", "old_logprobs": "on_policy"},
            "old_logprobs is on_policy with algorithm.covariance=kl; use recompute",
        ),
        (
            {"correction": "token_tis", "correction_normalized": True, "old_logprobs": "on_policy"},
            "old_logprobs is on_policy with algorithm.correction_normalized=True; use recompute",
        ),
        (
            {"correction": "token_mis", "correction_floor": 0.5},
            "is 0.5 with algorithm.correction='token_mis'; only token_tis, sequence_tis have one",
        ),
        (
            {"correction": "token_tis", "correction_floor": 2.0},
            "config.algorithm.correction_floor is 2.0; need less than algorithm.correction_high",
        ),
        (
            {"rejection": "sequence", "rejection_low": 3.0},
            "config.algorithm.rejection_high is 2.0; need 0 (off) or more than algorithm.rej",
        ),
        (
            {"rejection": "token", "rejection_low": 0.0, "rejection_high": 0.0},
            "config.algorithm.rejection is token with no bound; give algorithm.rejection_low or",
        ),
        (
            {"rejection": "token", "rejection_low": 1.5, "rejection_high": 3.0},
            "rejection_low is 1.5, which leaves out what the sampler and the trainer agree on; n",
        ),
        (
            {"rejection": "geometric", "rejection_low": 0.1, "rejection_high": 0.5},
            "rejection_high is 0.5, which leaves out what the sampler and the trainer agree on; n",
        ),
        (
            {"correction": "token_mis", "correction_low": 1.2},
            "correction_low is 1.2, which leaves out what the sampler and the trainer agree on; n",
        ),
        (
            {"correction": "veto", "correction_low": 2.0},
            "correction_low is 2.0, which leaves out what the sampler and the trainer agree on; n",
        ),
        (
            {"covariance_share": 0.1},
            "covariance_share is 0.1, but nothing looks at it; choose algorithm.covariance, or lea",
        ),
        (
            {"covariance": "kl", "covariance_low": 0.0},
            "covariance_low is 0.0, but nothing looks at it; choose algorithm.covariance=clip, or",
        ),
        (
            {"covariance": "clip", "covariance_coef": 2.0},
            "covariance_coef is 2.0, but nothing looks at it; choose algorithm.covariance=kl, or",
        ),
        (
            {"entropy_target": 0.5},
            "entropy_target is 0.5, but nothing looks at it; choose algorithm.entropy_controller",
        ),
        (
            {"rejection": "sequence", "old_logprobs": "sampler"},
            "config.algorithm.rejection is sequence with algorithm.old_logprobs=sampler; use",
        ),
        (
            {"veto": 0.1, "old_logprobs": "sampler"},
            "config.algorithm.veto is 0.1 with algorithm.old_logprobs=sampler; use recompute",
        ),
        (
            {"kl_gradient": "importance", "kl_coef": 0.1, "kl_placement": "reward"},
            "leave it out: only a KL term in the loss has a gradient",
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
        resolve(config)


@pytest.mark.parametrize("policy", algorithms.POLICIES)
def test_a_policy_brings_its_own_defaults(config, policy):
    config.algorithm.policy = policy
    a = resolve(config).algorithm
    wanted = algorithms.POLICIES[policy]
    got = (a.clip_low, a.clip_high, a.clip_dual, a.aggregation)
    assert got == (*(x or 0.0 for x in wanted[:3]), wanted.aggregation)


def test_what_is_given_is_kept(config):
    given = {"policy": "gspo", "clip_low": 0.0, "clip_dual": 4.0, "aggregation": "token_mean"}
    config.algorithm.update(given)
    a = resolve(config).algorithm
    assert {name: getattr(a, name) for name in given} == given
    assert a.clip_high == 4e-4


@pytest.mark.parametrize("correction", ["", *algorithms.CORRECTIONS])
def test_a_correction_brings_its_own_bounds(config, correction):
    config.algorithm.correction = correction
    a = resolve(config).algorithm
    low, high = algorithms.CORRECTIONS[correction] if correction else (None, None)
    assert (a.correction_low, a.correction_high) == (low or 0, high or 0)


@pytest.mark.parametrize("rejection", ["", *algorithms.REJECTIONS])
def test_a_rejection_brings_its_own_bounds(config, rejection):
    config.algorithm.rejection = rejection
    a = resolve(config).algorithm
    low, high = algorithms.REJECTIONS[rejection] if rejection else (None, None)
    assert (a.rejection_low, a.rejection_high) == (low or 0, high or 0)


def test_a_bound_of_a_rejection_may_be_off(config):
    config.algorithm.update({"rejection": "sequence", "rejection_low": 0.0})
    a = resolve(config).algorithm
    assert (a.rejection_low, a.rejection_high) == (0, 2)


@pytest.mark.parametrize(
    ("aggregation", "given", "divisor"),
    [
        ("fixed_length", 0.0, 4096),
        ("fixed_length", 1000.0, 1000),
        ("sequence_sum", 0.0, 1),
        ("token_sum", 0.0, 1),
        ("token_sum", 512.0, 512),
    ],
)
def test_what_an_aggregation_divides_by(config, aggregation, given, divisor):
    config.algorithm.update({"aggregation": aggregation, "aggregation_divisor": given})
    assert learner_settings(resolve(config)).loss_divisor == divisor


def test_the_policy_learns_too_after_the_warm_up_of_the_critic(config):
    config.num_steps, config.critic.warmup_steps = 20, 20
    resolve(config)  # without a critic nothing is warmed up
    config.algorithm.advantage = "gae"
    says = "config.critic.warmup_steps is 20 with num_steps=20; lower it"
    with pytest.raises(ValueError, match=says):
        resolve(config)
    config.critic.warmup_steps = 19
    resolve(config)


@pytest.mark.parametrize("advantage", algorithms.WITHOUT_GROUPS)
def test_one_completion_a_prompt_is_enough_without_groups(config, advantage):
    config.rollout.n = 1
    config.algorithm.advantage = advantage
    assert resolve(config).rollout.n == 1


@pytest.mark.parametrize("group", ["mix", "replay"])
def test_offline_completions_leave_one_to_the_policy(config, group):
    config.mix.per_group = config.rollout.n
    resolve(config)  # nothing is mixed in
    config[group].enabled = True
    says = "config.mix.per_group is 8 with rollout.n=8; leave at least one completion"
    with pytest.raises(ValueError, match=says):
        resolve(config)
    config.mix.per_group = 7
    assert resolve(config).mix.per_group == 7


def test_offline_trajectories_as_sampled_need_recomputed_logprobs(config):
    config.algorithm.old_logprobs = "sampler"
    config.mix.enabled = True
    with pytest.raises(ValueError, match="is sampler with mix.treatment=on_policy; use recompute"):
        resolve(config)
    config.mix.treatment = "luffy"
    assert resolve(config).mix.treatment == "luffy"


def test_one_update_takes_its_own_logprobs_for_the_old_ones(config):
    assert resolve(config).algorithm.old_logprobs == "on_policy"
    config.algorithm.update({"kl_coef": 0.1, "correction": "token_tis"})
    assert resolve(config).algorithm.old_logprobs == "on_policy"
    config.algorithm.old_logprobs = "recompute"
    assert resolve(config).algorithm.old_logprobs == "recompute"


@pytest.mark.parametrize(
    "fields",
    [
        {"algorithm.updates_per_rollout": 2},
        {"algorithm.epochs_per_rollout": 2},
        {"algorithm.entropy_share": 0.2},
        {"algorithm.covariance": "kl"},
        {"algorithm.correction": "token_tis", "algorithm.correction_normalized": True},
        {"algorithm.kl_coef": 0.1, "algorithm.kl_placement": "reward"},
        {"lora.rank": 4, "lora.dropout": 0.1},
    ],
)
def test_old_logprobs_are_recomputed_where_the_update_s_own_are_not_the_same(config, fields):
    config.update_from_flattened_dict(fields)
    assert resolve(config).algorithm.old_logprobs == "recompute"


def test_imitated_completions_leave_a_group_to_the_policy(config):
    config.mix.update({"enabled": True, "treatment": "sft", "per_group": 7})
    says = "mix.per_group is 7 with rollout.n=8, mix.treatment=sft and algorithm.advantage=grpo"
    with pytest.raises(ValueError, match=f"{says}; leave 2 completions"):
        resolve(config)
    config.algorithm.advantage = "gae"
    resolve(config)
    config.algorithm.advantage, config.mix.per_group = "grpo", 6
    assert resolve(config).mix.per_group == 6


@pytest.mark.parametrize("old", ["sampler", "on_policy"])
@pytest.mark.parametrize("group", ["mix", "replay"])
def test_a_penalty_of_offline_completions_needs_recomputed_logprobs(config, group, old):
    config.algorithm.update({"kl_coef": 0.1, "kl_placement": "reward", "old_logprobs": old})
    config.mix.treatment = "luffy"
    assert resolve(config).algorithm.old_logprobs == old  # nothing is mixed in
    config[group].enabled = True
    says = f"old_logprobs is {old} with algorithm.kl_placement=reward and offline completions"
    with pytest.raises(ValueError, match=f"{says}; use recompute"):
        resolve(config)
    config.algorithm.kl_placement = "loss"
    assert resolve(config).algorithm.old_logprobs == old


def test_dynamic_sampling_needs_a_spread(config):
    config.rollout.n, config.dynamic.enabled = 1, True
    config.algorithm.advantage = "gae"
    says = "dynamic.enabled is True with rollout.n=1 and algorithm.advantage=gae; draw at least 2"
    with pytest.raises(ValueError, match=says):
        resolve(config)
    config.algorithm.advantage = "remax"  # its greedy completion is a second
    assert resolve(config).dynamic.enabled


@pytest.mark.parametrize("threshold", [None, 0.0, 1.0])
def test_every_accuracy_may_be_a_threshold(config, threshold):
    config.mix.accuracy_threshold = threshold
    assert resolve(config).mix.accuracy_threshold == threshold


@pytest.mark.parametrize(("n", "given", "rollouts"), [(8, 0, 4), (7, 0, 3), (8, 6, 6)])
def test_half_as_many_completions_are_drawn_on_shuffled_frames(config, n, given, rollouts):
    config.rollout.n, config.algorithm.temporal_rollouts = n, given
    assert resolve(config).algorithm.temporal_rollouts == rollouts


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--config=configs/base.py", "--config.num_stepz=3"], "num_stepz"),
        (["--config=configs/base.py", "--config.data.fps=3"], "fps"),
        (["--config=configs/nothing.py"], "--config=configs/nothing.py: no such file, and no"),
        (["--config=dmo", "--config.seed=3"], "; did you mean demo?"),
        (["--config", "configs/nothing.py:debug"], "--config=configs/nothing.py: no such file"),
        (["--config=configs"], "--config=configs: no such file, and no config of evr1's"),
        (["--config="], "--config is not given; give a name or a file, e.g. --config=demo"),
        (["--config.seed=3"], "--config is not given; give"),
        ([], "--config is not given; give"),
        (["--config=configs/base.py"], "config.workdir is not given"),
        (["--config=base"], "config.workdir is not given"),
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


def test_import_pulls_in_no_framework():
    unwanted = ("torch", "tensorflow", "jax")
    code = f"import sys, evr1, evr1.main; print([m for m in {unwanted} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
