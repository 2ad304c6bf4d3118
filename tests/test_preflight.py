"""Each check before the first step is shown to fire, on a real run with one fault planted."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from templates import PREFILLED, make_processor

from configs import demo
from evr1 import preflight, train
from evr1.config import resolve
from evr1.data.demo.files import make_demo
from evr1.exchange import publish
from evr1.learner.update import make_update
from evr1.parallel.mesh import make_mesh
from evr1.rewards import Score, Status
from evr1.rewards.pool import RewardPool
from evr1.rl.losses import LossConfig

NAMES = (
    "placeholders = features",
    "reward of a gold answer = 1",
    "reward of a gold answer in open reasoning = 0",
    "sampler and trainer agree",
    "on policy: ratio 1, KL 0",
    "end token reachable",
    "the answer reacts to the frames",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the demo's model on one device, and the state that it starts from."""
    data = tmp_path_factory.mktemp("data")
    make_demo(data, seed=0, train=8, heldout=1)
    c = demo.get_config()
    c.workdir = str(tmp_path_factory.mktemp("run"))
    c.data.update(generate=False, preprocess=False, source="realtime_only", eval="")
    c.data.update(train=str(data / "train.jsonl"), media_dir=str(data))
    c.rollout.update(prompts=4, n=2, slots=4)
    c.rewards.timeout_s = 60.0
    c.algorithm.old_logprobs = "recompute"  # else the ratio is 1 by construction

    def one_device(**sizes):
        return make_mesh(data=1, fsdp=1, tensor=1, devices=jax.devices()[:1])

    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setattr(train, "make_mesh", one_device)
        opened = train.open_run(resolve(c), stack)
        yield opened, opened.learner.init().policy.params


def failed(chain, learner, params, drawing=None):
    """The names of the checks that print ✗, in order; `drawing` are other weights to draw with."""
    lines = []
    published = publish(learner.model, params if drawing is None else drawing, 0)
    with contextlib.suppress(ValueError):
        preflight.check(chain, published, params, lines.append)
    assert len(lines) == len(NAMES)
    return [name for name, line in zip(NAMES, lines, strict=True) if line.startswith("✗")]


def with_programs(chain, **programs):
    """The chain with other programs of its learner."""
    learner = chain.learner
    programs = dataclasses.replace(learner.programs, **programs)
    return dataclasses.replace(chain, learner=dataclasses.replace(learner, programs=programs))


def shifted(chain, by):
    """The chain with log-probabilities that are off by so much."""
    logprobs = chain.learner.programs.logprobs
    return with_programs(chain, logprobs=lambda *inputs: logprobs(*inputs) + by)


def test_a_sound_chain_passes_and_leaves_the_data_where_they_were(run):
    opened, params = run
    before = opened.dataset.train.get_state()
    assert failed(opened.chain, opened.learner, params) == []
    assert opened.dataset.train.get_state() == before


def test_a_failed_check_stops_the_run_and_names_it(run):
    opened, params = run
    published = publish(opened.learner.model, params, 0)
    with pytest.raises(ValueError, match="canaries failed: sampler and trainer agree, on policy"):
        preflight.check(shifted(opened.chain, 0.1), published, params, lambda line: None)


def test_a_lost_placeholder(run):
    opened, _ = run
    example = next(e for e in map(opened.dataset.train.load, range(8)) if e.is_visual.any())
    lost = example.is_visual.copy()
    lost[np.flatnonzero(lost)[0]] = False
    merge = opened.processor.geometry.merge_size
    assert preflight._placeholders([example], merge).is_ok
    finding = preflight._placeholders([dataclasses.replace(example, is_visual=lost)], merge)
    assert not finding.is_ok
    assert example.row.source in finding.detail


def test_a_scorer_that_marks_right_answers_wrong(run):
    opened, params = run
    wrong = dataclasses.replace(
        opened.chain, score=lambda texts, rows: [Score(0.0, 0.0, 0.0, Status.UNPARSED)] * len(rows)
    )
    assert failed(wrong, opened.learner, params) == [NAMES[1]]


def test_a_scorer_that_pays_for_reasoning(run):
    opened, params = run
    paying = dataclasses.replace(
        opened.chain, score=lambda texts, rows: [Score(1.0, 1.0, 1.0, Status.OK)] * len(rows)
    )
    assert failed(paying, opened.learner, params) == [NAMES[2]]


def test_a_prompt_that_opens_the_block_and_a_scorer_that_is_not_told(run, tmp_path):
    opened, _ = run
    examples = [opened.dataset.train.load(i) for i in range(4)]
    prefilled = make_processor(tmp_path, PREFILLED)

    def checks(score):
        chain = dataclasses.replace(opened.chain, score=score)
        found = (preflight._gold_rewards, preflight._open_reasoning)
        return [check(chain, prefilled, examples) for check in found]

    with RewardPool(workers=1, timeout_s=60.0, think_open=True) as pool:
        assert [f.is_ok for f in checks(pool.score_batch)] == [True, True]
    gold, quoted = checks(opened.chain.score)
    assert (gold.is_ok, quoted.is_ok) == (True, False)
    assert "earns 1.00 behind a prompt that ends in <think>" in quoted.detail


def test_a_sampler_with_stale_weights(run):
    opened, params = run
    stale = jax.tree.map(lambda x: x * 1.05, params)
    assert NAMES[3] in failed(opened.chain, opened.learner, params, drawing=stale)


def test_logprobs_of_another_quantity(run):
    """Half a promille of probability is over the limit of float32."""
    opened, params = run
    assert failed(shifted(opened.chain, 5e-4), opened.learner, params) == [NAMES[3], NAMES[4]]


def test_an_update_that_sees_another_policy(run):
    opened, params = run
    update = opened.learner.programs.update

    def accumulate(params, grads, part):
        return update.accumulate(params, grads, part._replace(old_logprobs=part.old_logprobs - 0.1))

    broken = with_programs(opened.chain, update=update._replace(accumulate=accumulate))
    assert failed(broken, opened.learner, params) == [NAMES[4]]


def test_an_update_of_its_own_ratio_that_sees_another_policy(run):
    opened, params = run
    learner = opened.learner
    loss = LossConfig(on_policy=True)
    update = make_update(learner.model, learner.programs.optimizer, loss)

    def shifted(params, grads, part):
        return update.accumulate(jax.tree.map(lambda x: 1.1 * x, params), grads, part)

    for accumulate, names in ((update.accumulate, []), (shifted, [NAMES[4]])):
        chain = with_programs(opened.chain, update=update._replace(accumulate=accumulate))
        assert failed(chain, learner, params) == names


def test_no_end_token(run):
    """What ends a completion is a token that the model never was taught to say."""
    opened, params = run
    sampler = opened.chain.sampler
    unknown = dataclasses.replace(sampler.sampling, end_ids=sampler.sampling.banned_ids[:1])
    chain = dataclasses.replace(
        opened.chain, sampler=dataclasses.replace(sampler, sampling=unknown)
    )
    assert failed(chain, opened.learner, params) == [NAMES[5]]


def test_a_blind_model(run):
    opened, params = run
    blind = params | {"vision": jax.tree.map(jnp.zeros_like, params["vision"])}
    assert failed(opened.chain, opened.learner, blind) == [NAMES[6]]
