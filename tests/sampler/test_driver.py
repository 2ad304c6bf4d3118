"""The event loop and the engine on a small random model: what a token may depend on."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sampler_rig as rig

from evr1.batch.shapes import ShapeTable
from evr1.learner.update import make_logprobs
from evr1.parallel.mesh import make_mesh
from evr1.sampler import Engine, Sampler, Sampling
from evr1.sampler.groups import Group, ListFeed
from evr1.sampler.sampling import RowIds
from evr1.sampler.weights import lay_out
from evr1.types import Rollouts

VIDEO, IMAGE = ("video", (2, 4, 4)), ("image", (1, 4, 6))
EXAMPLES = [
    rig.example(parts, seed)
    for seed, parts in enumerate(
        [(5,), (4, VIDEO, 3), (9,), (2, IMAGE, 4), (7,), (3, IMAGE, 2, VIDEO, 5)]
    )
]
IDS = np.array([100, 7, 21, 3, 55, 1000])
END = (3, 40, 41, 60, 80)
SAMPLING = Sampling(max_tokens=20, end_ids=END, banned_ids=(90, 91), seed=5)


def run(sampler: Sampler, order=range(6), sampling: Sampling = SAMPLING, **options) -> Rollouts:
    """Rollouts of the examples in `order`, sorted back."""
    order = list(order)
    got = sampler.generate(
        rig.params(), [EXAMPLES[i] for i in order], IDS[order], sampling, **options
    )
    return Rollouts(*(part[np.argsort(order)] for part in got))


@pytest.fixture(scope="module")
def base() -> Rollouts:
    return run(rig.sampler(n=3, slots=4, window=8, prefill_groups=2))


def assert_same(got: Rollouts, want: Rollouts) -> None:
    """Tokens to the bit; log-probabilities up to another order of summation in float32."""
    np.testing.assert_array_equal(got.completions, want.completions)
    np.testing.assert_array_equal(got.lengths, want.lengths)
    np.testing.assert_array_equal(got.finished, want.finished)
    np.testing.assert_allclose(got.logprobs, want.logprobs, atol=2e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"slots": 2, "prefill_groups": 1},
        {"slots": 8, "prefill_groups": 4, "window": 13},
        {"window": 1},
        {"dispatch_ahead": True},
    ],
)
def test_tokens_do_not_depend_on_slots_windows_or_prefill_batches(base, options):
    options = {"n": 3, "slots": 4, "window": 8, "prefill_groups": 2, **options}
    assert_same(run(rig.sampler(**options)), base)


@pytest.mark.parametrize("order", [(5, 4, 3, 2, 1, 0), (2, 0, 4, 1, 5, 3)])
def test_tokens_do_not_depend_on_batch_order(base, order):
    assert_same(run(rig.sampler(n=3, slots=4, window=8, prefill_groups=2), order), base)


def test_rows_do_not_depend_on_n(base):
    got = run(rig.sampler(n=2, slots=4, window=8, prefill_groups=2))
    assert_same(got, Rollouts(*(part[:, :2] for part in base)))


@pytest.fixture(scope="module")
def greedy() -> Rollouts:
    sampling = Sampling(0.0, max_tokens=20, end_ids=END, banned_ids=(90, 91))
    return run(rig.sampler(n=1, slots=4, window=8, prefill_groups=2), sampling=sampling)


@pytest.mark.parametrize(("n", "rows"), [(3, 1), (3, 2), (2, 1)])
def test_the_last_rows_are_greedy_and_the_others_draw_as_without_them(base, greedy, n, rows):
    sampler = rig.sampler(n=n, slots=4, window=8, prefill_groups=2)
    got = run(sampler, sampling=dataclasses.replace(SAMPLING, greedy_rows=rows))
    drawn = n - rows
    assert_same(
        Rollouts(*(part[:, :drawn] for part in got)), Rollouts(*(part[:, :drawn] for part in base))
    )
    for row in range(drawn, n):
        assert_same(
            Rollouts(*(part[:, row] for part in got)), Rollouts(*(part[:, 0] for part in greedy))
        )
    assert (greedy.completions[:, 0] != base.completions[:, drawn]).any(axis=1).all()


def test_a_greedy_row_s_logprobs_are_at_the_sampling_temperature(greedy):
    sampling = dataclasses.replace(SAMPLING, temperature=0.7, greedy_rows=1)
    got = run(rig.sampler(n=3, slots=4, window=8, prefill_groups=2), sampling=sampling)
    np.testing.assert_array_equal(got.completions[:, 2], greedy.completions[:, 0])
    scaled = trainer_logits(got.completions.tobytes())[:, 2] / 0.7
    full = scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))
    want = np.take_along_axis(full, got.completions[:, 2, :, None], -1)[..., 0]
    real = np.arange(20) < got.lengths[:, 2, None]
    np.testing.assert_allclose(got.logprobs[:, 2][real], want[real], atol=1e-4)


def with_tail(example, tail):
    """The example with more text behind it."""
    at = example.next_position + np.arange(len(tail), dtype=np.int32)
    return dataclasses.replace(
        example,
        tokens=np.append(example.tokens, tail).astype(np.int32),
        is_visual=np.append(example.is_visual, np.zeros(len(tail), bool)),
        positions=np.concatenate([example.positions, np.tile(at, (3, 1))], 1),
        next_position=int(at[-1]) + 1,
    )


TAILS = [np.array(tail) for tail in ((11, 12), (13, 14, 15, 16, 17), (18,), (19, 20, 21))]


@pytest.mark.parametrize("sampling", [SAMPLING, dataclasses.replace(SAMPLING, temperature=0.0)])
@pytest.mark.parametrize("options", [{}, {"slots": 2, "prefill_groups": 1, "dispatch_ahead": True}])
def test_questions_on_one_prompt_are_answered_as_separate_prompts(sampling, options):
    """Four questions on each of six prompts in two groups of three rows, one row left out."""
    options = {"slots": 4, "window": 8, "prefill_groups": 2} | options
    shapes = dataclasses.replace(rig.SHAPES, prompt_tokens=(64,))
    separate = [with_tail(e, tail) for e in EXAMPLES for tail in TAILS]
    ids = np.arange(len(separate)) + 50
    one = rig.sampler(n=2, shapes=shapes, **options)
    want = one.generate(rig.params(), separate, ids, sampling)
    groups = []
    for e, example in enumerate(EXAMPLES):
        for at in (0, 3):
            tails = [TAILS[i] for i in range(at, 4)][:3]
            requests = np.zeros(6, np.int32)
            requests[: 2 * len(tails)] = np.repeat(ids[4 * e + at : 4 * e + at + len(tails)], 2)
            draws = np.tile(np.arange(2, dtype=np.int32), 3)
            both = tuple(tail for tail in tails for _ in range(2))
            groups.append(Group((4 * e + at, len(tails)), example, RowIds(requests, draws), both))
    got = {}
    sampler = rig.sampler(n=6, **options)
    sampler.run(
        rig.params(),
        ListFeed(groups),
        sampling,
        lambda key, rollouts: got.update({key: rollouts}),
        prompt_tokens=48,
        question_tokens=5,
    )
    assert len(got) == 12
    for (at, count), rollouts in got.items():
        rows = Rollouts(*(part[: 2 * count] for part in rollouts))
        assert_same(rows, Rollouts(*(np.concatenate(part[at : at + count]) for part in want)))
    assert len({row.tobytes() for row in want.completions[:4, 0]}) > 2  # the answers differ


class SlowFeed(ListFeed):
    """Groups that are there once somebody waits for them."""

    def take(self, count, wait):
        return super().take(1, wait) if wait else []


@pytest.mark.parametrize("ahead", [False, True])
def test_slots_are_filled_before_a_cpu_decodes(ahead):
    sampler = rig.sampler(n=1, slots=2, prefill_groups=1, window=8, dispatch_ahead=ahead)
    sampling = dataclasses.replace(SAMPLING, end_ids=(), max_tokens=17)
    got = {}
    for feed in (ListFeed, SlowFeed):
        ids = [RowIds(*(x[i] for x in RowIds.of_groups(IDS, 1))) for i in range(2)]
        groups = [Group(i, EXAMPLES[i], ids[i]) for i in range(2)]
        sampler.run(rig.params(), feed(groups), sampling, lambda *_: None, prompt_tokens=48)
        got[feed] = sampler.stats.windows
    assert got[ListFeed] == 2
    assert (got[SlowFeed] == 2) != ahead


def test_only_allowed_tokens_are_drawn():
    sampling = dataclasses.replace(SAMPLING, allowed_ids=(11, 12, 90), end_ids=())
    got = run(rig.sampler(n=2, slots=4, window=8, prefill_groups=2), sampling=sampling)
    assert set(got.completions.ravel().tolist()) == {11, 12}  # 90 is banned


def test_requests_and_seeds_draw_differently(base):
    sampler = rig.sampler(n=3, slots=4, window=8, prefill_groups=2)
    got = sampler.generate(rig.params(), [EXAMPLES[0]] * 2, [100, 101], SAMPLING)
    np.testing.assert_array_equal(got.completions[0], base.completions[0])
    assert (got.completions[1] != got.completions[0]).any()
    other = run(sampler, sampling=Sampling(max_tokens=20, end_ids=END, seed=6))
    assert (other.completions != base.completions).any(axis=(1, 2)).all()
    assert (base.completions[0, 0] != base.completions[0, 1]).any()


def test_completions_end_at_the_first_end_token_or_at_the_limit(base):
    assert base.finished.any()
    assert not base.finished.all()  # or the test below shows half of what it should
    for tokens, logprobs, length, finished in zip(
        *(part.reshape(18, -1) for part in base), strict=True
    ):
        assert np.isin(tokens[: length[0] - 1], END).sum() == 0
        assert np.isin(tokens[length[0] - 1], END) == finished[0]
        assert finished[0] or length[0] == 20
        assert (tokens[length[0] :] == 0).all()
        assert (logprobs[: length[0]] < 0).all()
        assert (logprobs[length[0] :] == 0).all()
    last = np.take_along_axis(base.completions, base.lengths[..., None] - 1, 2)[base.finished]
    assert len(np.unique(last)) >= 3  # several of the end ids do end a completion


def test_every_end_id_ends_and_belongs_to_the_completion(base):
    """Whatever token comes, made an end id it ends the completion there."""
    sampler = rig.sampler(n=3, slots=4, window=8, prefill_groups=2)
    free = run(sampler, sampling=Sampling(max_tokens=20, seed=5))
    assert free.lengths.min() == 20
    assert not free.finished.any()
    for position in (0, 5, 19):
        end = int(free.completions[1, 2, position])
        first = int(np.argmax(free.completions[1, 2] == end))
        got = run(sampler, sampling=Sampling(max_tokens=20, end_ids=(95, end), seed=5))
        assert got.lengths[1, 2] == first + 1
        assert got.finished[1, 2]
        np.testing.assert_array_equal(
            got.completions[1, 2, : first + 1], free.completions[1, 2, : first + 1]
        )


@pytest.mark.parametrize("limit", [1, 2, 9])
def test_limit(base, limit):
    got = run(
        rig.sampler(n=3, slots=4, window=8, prefill_groups=2),
        sampling=Sampling(max_tokens=limit, end_ids=END, banned_ids=(90, 91), seed=5),
    )
    assert got.completions.shape == (6, 3, limit)
    np.testing.assert_array_equal(got.lengths, np.minimum(base.lengths, limit))
    np.testing.assert_array_equal(got.finished, base.finished & (base.lengths <= limit))
    np.testing.assert_array_equal(got.completions, base.completions[..., :limit])


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {}, {"top_p": 0.9, "top_k": 40}])
def test_banned_ids_are_never_drawn(options):
    sampler = rig.sampler(n=3, slots=4, window=8, prefill_groups=2)
    free = run(sampler, sampling=Sampling(max_tokens=12, **options))
    banned = tuple(np.unique(free.completions).tolist())  # what it likes best
    got = run(sampler, sampling=Sampling(max_tokens=12, banned_ids=banned, **options))
    assert not np.isin(got.completions, banned).any()
    assert (got.lengths == 12).all()


@functools.cache
def trainer_logits(tokens: bytes) -> np.ndarray:
    """float64[G, N, R, V] of the group layout, which is what the update computes from."""
    completions = np.frombuffer(tokens, np.int32).reshape(6, 3, 20)
    prompts = rig.sampler(slots=6, prefill_groups=6).prompts(EXAMPLES)

    @jax.jit
    def logits(params, completions):
        return rig.model().logits(params, rig.model().group_hidden(params, prompts, completions))

    return np.asarray(logits(rig.params(), completions), np.float64)


@pytest.mark.parametrize(
    ("temperature", "options"), [(1.0, {}), (0.7, {}), (1.5, {"top_k": 40, "top_p": 0.9})]
)
def test_logprobs_are_those_of_the_group_layout(temperature, options):
    sampling = Sampling(
        temperature=temperature, max_tokens=20, end_ids=END, banned_ids=(90, 91), seed=5, **options
    )
    got = run(rig.sampler(n=3, slots=4, window=8, prefill_groups=2), sampling=sampling)
    logits = trainer_logits(got.completions.tobytes())

    def gap(temperature):
        scaled = logits / temperature
        full = scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))
        want = np.take_along_axis(full, got.completions[..., None], -1)[..., 0]
        return np.abs(got.logprobs - want)[np.arange(20) < got.lengths[..., None]].max()

    assert gap(temperature) < 1e-4
    assert gap(temperature * 1.1) > 1e-2


def test_logprobs_are_the_trainers(base):
    """By the very function that the training loop calls."""
    prompts = rig.sampler(slots=6, prefill_groups=6).prompts(EXAMPLES)
    want = make_logprobs(rig.model())(rig.params(), prompts, jnp.asarray(base.completions))
    real = np.arange(20) < base.lengths[..., None]
    np.testing.assert_allclose(base.logprobs[real], np.asarray(want)[real], atol=1e-4)


def test_finished_groups_are_told_as_they_come(base):
    seen = {}
    got = run(
        rig.sampler(n=3, slots=2, window=8, prefill_groups=1),
        on_finish=lambda i, rollouts: seen.__setitem__(i, Rollouts(*map(np.copy, rollouts))),
    )
    assert sorted(seen) == list(range(6))
    for i, rollouts in seen.items():
        for part, whole in zip(rollouts, got, strict=True):
            np.testing.assert_array_equal(part, whole[i])


def test_second_call_compiles_nothing(base):
    """Nor do other ids, seeds, temperatures, limits, end ids, bans and numbers of greedy rows."""
    sampler = rig.sampler(n=3, slots=4, window=8, prefill_groups=2)
    run(sampler)
    run(sampler, sampling=dataclasses.replace(SAMPLING, greedy_rows=1))
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **kwargs: compiled.append(event) if "backend_compile" in event else None
    )
    try:
        run(sampler, order=(3, 1, 2, 0, 4, 5))
        other = Sampling(0.7, max_tokens=15, end_ids=(1, 2, 3, 4, 5), banned_ids=(9,), seed=8)
        run(rig.sampler(n=3, slots=4, window=8, prefill_groups=2), sampling=other)
        run(sampler, sampling=dataclasses.replace(other, greedy_rows=2))
        assert compiled == []
        run(rig.sampler(n=3, slots=4, window=7, prefill_groups=2))
        assert compiled  # the counter counts
    finally:
        jax.monitoring.clear_event_listeners()


def test_stats(base):
    sampler = rig.sampler(n=3, slots=4, window=8, prefill_groups=2, dispatch_ahead=False)
    got, stats = run(sampler, range(4)), sampler.stats
    assert stats.prompts == 4
    assert stats.tokens == got.lengths.sum()
    assert stats.prefills == 2
    # All groups start together: the longest decides, and the first token came with the prefill.
    assert stats.steps == got.lengths.max() - 1
    assert stats.windows == -(-stats.steps // 8)
    rows = stats.steps * 4 * 3
    assert stats.idle_row_share == pytest.approx(1 - (got.lengths - 1).sum() / rows)
    assert 0 < stats.prefill_s + stats.decode_s <= stats.total_s
    assert stats.tokens_per_s == pytest.approx(stats.tokens / stats.total_s)


def test_without_examples():
    got = rig.sampler(n=3).generate(rig.params(), [], [], SAMPLING)
    assert got.completions.shape == (0, 3, 20)


def test_eight_devices_draw_the_same_tokens(base):
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    got = run(rig.sampler(n=3, slots=8, window=8, prefill_groups=4, mesh=mesh))
    assert_same(got, base)


def test_bfloat16_casts_the_matrices_once():
    """What the sampler casts beforehand is what the model would cast: the numbers are the same."""
    model = rig.model("bfloat16")
    cast = lay_out(rig.params(), model)
    matrices = {leaf.dtype.name for leaf in jax.tree.leaves(cast["text"]) if leaf.ndim == 3}
    assert matrices == {"bfloat16"}
    tokens = jnp.full((1, 1), 5)

    @jax.jit
    def logits(params):
        cache = model.init_cache(1, 1, 4, 4)
        zero = jnp.zeros((1, 1), jnp.int32)
        hidden, _ = model.decode(params, cache, tokens, zero, zero)
        return model.logits(params, hidden)

    np.testing.assert_array_equal(logits(cast), logits(rig.params()))


def test_float32_weights_are_new_arrays_of_the_same_numbers():
    """An update may give the trained ones away while the sampler still draws with these."""
    drawn = jax.tree.leaves(lay_out(rig.params(), rig.model()))
    for x, y in zip(jax.tree.leaves(rig.params()), drawn, strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.unsafe_buffer_pointer() != y.unsafe_buffer_pointer()


def test_bad_arguments():
    with pytest.raises(ValueError, match="2 examples with 1 request ids"):
        rig.sampler().generate(rig.params(), EXAMPLES[:2], [1], SAMPLING)
    with pytest.raises(ValueError, match="max_tokens=33 exceeds the room for completions, 32"):
        rig.sampler().generate(rig.params(), EXAMPLES[:1], [1], Sampling(max_tokens=33))
    with pytest.raises(ValueError, match="prefill_groups=5 exceeds slots=4"):
        rig.sampler(slots=4, prefill_groups=5)
    with pytest.raises(ValueError, match="window=0"):
        rig.sampler(window=0)
    small = ShapeTable(prompt_tokens=(8,), vision_rows=(0,), row_patches=24, completion_tokens=64)
    with pytest.raises(ValueError, match="largest bucket 8; raise shapes.prompt_tokens"):
        rig.sampler(shapes=small).generate(rig.params(), EXAMPLES, IDS, SAMPLING)
    mesh = make_mesh(data=4, fsdp=2, tensor=1)
    with pytest.raises(ValueError, match="12 slots do not divide over 8 devices"):
        run(rig.sampler(slots=12, prefill_groups=8, mesh=mesh))
    with pytest.raises(ValueError, match="greedy_rows=3 exceeds n=2, the rows of a group; lower"):
        run(rig.sampler(n=2), sampling=Sampling(max_tokens=9, greedy_rows=3))


def test_engine_speaks_the_jetstream_api():
    """prefill, insert, generate; a slot is a group; results by slot."""
    engine = Engine(
        rig.model(), SAMPLING, n=3, slots=4, prompt_tokens=48, completion_tokens=32, window=8
    )
    assert engine.max_concurrent_decodes == 4
    assert engine.samples_per_slot == 3
    assert engine.max_prefill_length == 48
    assert engine.mesh is None
    prompts = rig.sampler(slots=2, prefill_groups=2).prompts([EXAMPLES[0], EXAMPLES[2]])
    ids = RowIds.of_groups(IDS[[0, 2]], 3)
    prefix = engine.prefill(params=rig.params(), prompts=prompts, ids=ids)
    state = engine.insert(prefix, engine.init_decode_state(), np.array([3, 1]))
    state, result = engine.generate(rig.params(), state)
    result.copy_to_host_async()
    result = result.convert_to_numpy()
    one = result.get_result_at_slot(3)
    assert one.tokens.shape == (3, 8)
    (start, stop), rows = result.tokens_idx, slice(9, 12)
    np.testing.assert_array_equal(result.data[rows, start:stop], one.tokens)
    start, stop = result.valid_idx
    np.testing.assert_array_equal(result.data[rows, start:stop], one.valid)
    start, stop = result.length_idx
    np.testing.assert_array_equal(result.data[rows, start], one.lengths)
    start, stop = result.logprobs_idx
    bits = result.data[rows, start:stop].copy().view(np.float32)
    np.testing.assert_array_equal(bits, one.logprobs)
    np.testing.assert_array_equal(one.lengths, 1 + one.valid.sum(1))
    assert not result.get_result_at_slot(0).valid.any()  # an empty slot draws nothing
