import jax
import numpy as np
import pytest
from groups_rig import SHAPES, F, N, P, R, make

from evr1.batch.assemble import group_batch, token_advantages
from evr1.batch.cut import Cutter, Owners, microbatches, minibatches
from evr1.batch.shapes import completion_bucket
from evr1.types import Rollouts


def who(part):
    """Which groups a part holds; 0 is padding."""
    return part.prompts.tokens[:, 0].tolist()


def shape(part):
    g, p = part.prompts.tokens.shape
    return g, p, part.completions.shape[2], part.prompts.vision.patches.shape[1]


def test_assembly_by_hand():
    batch = make([3, 5], [2, 0])
    np.testing.assert_array_equal(batch.completion_mask[0, :, :3], [[1, 1, 0], [1, 0, 0]])
    assert not batch.completion_mask[1].any()
    np.testing.assert_allclose(batch.loss_weights[batch.completion_mask], 1 / 3)
    np.testing.assert_array_equal(batch.old_logprobs, np.where(batch.completion_mask, -1, 0))
    np.testing.assert_array_equal(batch.behavior_logprobs, batch.old_logprobs)
    np.testing.assert_array_equal(batch.advantages, np.where(batch.completion_mask, 1, 0))
    np.testing.assert_array_equal(batch.is_offline, [[False] * N] * 2)
    np.testing.assert_array_equal(batch.kl_coef, [0, 0])


def test_advantages_may_stand_on_tokens():
    mask = np.arange(3) < np.array([[2, 1]])[..., None]
    per_token = np.float32([[[1, 2, 3], [4, 5, 6]]])
    np.testing.assert_array_equal(token_advantages(per_token, mask), [[[1, 2, 0], [4, 0, 0]]])
    per_completion = np.float32([[1, 2]])
    np.testing.assert_array_equal(token_advantages(per_completion, mask), [[[1, 1, 0], [2, 0, 0]]])


def test_completions_that_are_not_valid_are_not_trained_on():
    batch = make([3, 5], [2, 4])
    rollouts = Rollouts(
        batch.completions, batch.old_logprobs, np.array([[2, 1], [4, 1]]), np.ones((2, 2), bool)
    )
    valid = np.array([[True, False], [True, True]])
    kept = group_batch(
        batch.prompts,
        rollouts,
        np.ones((2, 2), np.float32),
        aggregation="token_mean",
        max_tokens=R,
        valid=valid,
    )
    assert kept.completion_mask.sum() == 7
    assert not kept.completion_mask[0, 1].any()
    np.testing.assert_allclose(kept.loss_weights[kept.completion_mask], 1 / 7)


def test_every_group_is_in_exactly_one_part():
    rng = np.random.default_rng(0)
    g = 23
    batch = make(rng.integers(1, P + 1, g), rng.integers(0, R + 1, g), rng.integers(0, F + 1, g))
    parts = microbatches(batch, 80, shapes=SHAPES)
    trained = np.flatnonzero(batch.completion_mask.any((1, 2))) + 1
    assert sorted(x for part in parts for x in who(part) if x) == trained.tolist()
    assert sum(part.loss_weights.sum() for part in parts) == pytest.approx(1)
    for part in parts:
        groups, p, r, _ = shape(part)
        assert groups * (p + N * r) <= 80
        assert part.prompts.lengths.max() <= p
        # Nothing was cut off: every token of the group is still there.
        for i, group in enumerate(who(part)):
            if group:
                before = jax.tree.map(lambda x, at=group - 1: x[at], batch)
                assert part.prompts.tokens[i].sum() == before.prompts.tokens.sum()
                assert part.completion_mask[i].sum() == before.completion_mask.sum()
                segments = before.prompts.vision.segment_ids
                assert part.prompts.vision.segment_ids[i].sum() == segments.sum()


def test_similar_lengths_stand_together_longest_first():
    batch = make([4, 16, 3, 15], [8] * 4)
    parts = microbatches(batch, 2 * (16 + N * R), shapes=SHAPES)
    assert [who(part) for part in parts] == [[2, 4], [1, 3]]
    assert [part.groups.tolist() for part in parts] == [[1, 3], [0, 2]]
    assert [shape(part) for part in parts] == [(2, 16, 8, 0), (2, 4, 8, 0)]


def test_the_last_part_is_filled_up_with_groups_of_weight_zero():
    parts = microbatches(make([16] * 5, [8] * 5), 3 * (16 + N * R), shapes=SHAPES)
    assert [who(part) for part in parts] == [[1, 2, 3], [4, 5, 0]]
    last = parts[1]
    assert not last.completion_mask[2].any()
    np.testing.assert_array_equal(last.loss_weights[2], 0)
    assert last.prompts.lengths[2] == last.prompts.next_positions[2] == 1
    np.testing.assert_array_equal(last.prompts.visual_index[2], -1)
    assert last.groups.tolist() == [3, 4, -1]
    assert not last.is_offline[2].any()
    assert last.kl_coef[2] == 0


def test_offline_completions_and_coefficients_go_with_their_groups():
    batch = make([4, 16, 3, 15], [8, 2, 8, 8])
    is_offline = np.array([[False, g % 2 == 1] for g in range(4)])
    batch = batch._replace(is_offline=is_offline, kl_coef=np.float32([0, 1, 2, 3]))
    for part in microbatches(batch, 2 * (16 + N * R), shapes=SHAPES):
        np.testing.assert_array_equal(part.is_offline, is_offline[part.groups])
        np.testing.assert_array_equal(part.kl_coef, part.groups)


def test_parts_are_evened_out():
    # Four fit at a time; 5 groups in 4 + 1 (and three of padding) would waste a third.
    parts = microbatches(make([16] * 5, [8] * 5), 4 * (16 + N * R))
    assert [shape(part)[0] for part in parts] == [3, 3]


def test_a_part_spreads_over_the_devices():
    parts = microbatches(make([16] * 5, [8] * 5), 5 * (16 + N * R), group_multiple=4)
    assert [shape(part)[0] for part in parts] == [4, 4]


def test_the_shape_depends_on_buckets_and_number_of_groups_alone():
    rng = np.random.default_rng(1)
    seen = {}
    for _ in range(20):
        batch = make(rng.integers(1, P + 1, 12), rng.integers(1, R + 1, 12))
        for part in microbatches(batch, 100, shapes=SHAPES):
            groups, *key = shape(part)
            assert seen.setdefault(tuple(key), groups) == groups
    assert len(seen) <= len(SHAPES.prompt_tokens) * 4


def test_the_same_batch_is_always_cut_in_the_same_way():
    batch = make([4, 16, 3, 15, 16], [8, 1, 3, 8, 2])
    first, second = (microbatches(batch, 80, shapes=SHAPES) for _ in range(2))
    assert [who(part) for part in first] == [who(part) for part in second]


def test_groups_without_signal_can_be_left_out_without_changing_the_others():
    batch = make([16] * 4, [8] * 4, signal=[0, 1, 0, -1])
    (part,) = microbatches(batch, 4 * (16 + N * R), drop_silent=True)
    assert who(part) == [2, 4, 0, 0]
    np.testing.assert_array_equal(part.loss_weights[:2], batch.loss_weights[[1, 3]])
    silent = make([16] * 2, [8] * 2, signal=[0, 0])
    assert microbatches(silent, 999, drop_silent=True) == []


def test_a_group_over_the_budget_is_refused():
    with pytest.raises(ValueError, match="2 groups of 16 prompt and 2 x 8 .* are 64 tokens, over"):
        microbatches(make([16] * 2, [8] * 2), 63, group_multiple=2)


@pytest.mark.parametrize(("tokens", "bucket"), [(0, 25), (25, 25), (26, 50), (99, 100), (100, 100)])
def test_completion_buckets(tokens, bucket):
    assert completion_bucket(tokens, 100) == bucket


def test_minibatches_have_their_own_weights():
    batch = make([4] * 4, [7, 1, 2, 0])
    first, second = minibatches(batch, 2, aggregation="token_mean", max_tokens=R)
    assert who(first) == [1, 3]  # the fourth has nothing to train on
    assert who(second) == [2]
    np.testing.assert_allclose(first.loss_weights[first.completion_mask], 1 / 11)
    np.testing.assert_allclose(second.loss_weights[second.completion_mask], 1 / 2)
    with pytest.raises(ValueError, match="updates_per_rollout=4, but only 3 groups"):
        minibatches(batch, 4, aggregation="token_mean", max_tokens=R)


def test_fewer_groups_to_train_on_than_updates_are_fewer_minibatches():
    batch = make([16] * 4, [8, 2, 8, 1])
    mask = batch.completion_mask.copy()
    cutter = Cutter(SHAPES, 4, "token_mean", 1, 10**6)
    for left, minibatches_left in (([0, 2], 2), ([], 1)):
        mask[[g for g in range(4) if g not in left]] = False
        parts = cutter.cut(batch._replace(completion_mask=mask))
        assert len(parts) == minibatches_left
        assert sorted(g for part in parts for p in part for g in p.groups if g >= 0) == left


@pytest.mark.parametrize("tokens", [24, 64, 10**6])
def test_what_a_whole_minibatch_says_does_not_depend_on_the_cut(tokens):
    """`finish` sees two minibatches of two groups each, whatever the size of the microbatches."""
    batch = make([16] * 4, [8, 2, 8, 1])
    tokens = max(tokens, 16 + N * 8)

    def ranked(part):
        assert len(part.groups) == 2
        rank = np.cumsum(part.completion_mask).reshape(part.completion_mask.shape)
        return part._replace(policy_weights=np.float32(rank), entropy_coef=np.float32(part.groups))

    cutter = Cutter(SHAPES, 2, "token_mean", 1, tokens)
    seen = {}
    for part in (part for minibatch in cutter.cut(batch, finish=ranked) for part in minibatch):
        for i, g in enumerate(part.groups):
            if g >= 0:
                assert part.entropy_coef[i] == g
                seen[int(g)] = part.policy_weights[i][part.completion_mask[i]]
    first, second = (np.arange(1, n + 1) for n in (9 + 9, 3 + 2))
    np.testing.assert_array_equal(np.concatenate([seen[0], seen[2]]), first)
    np.testing.assert_array_equal(np.concatenate([seen[1], seen[3]]), second)


def test_refusals():
    batch = make([3], [2])
    two = Rollouts(*(np.zeros((2, N, R)) for _ in range(2)), *(np.ones((2, N)),) * 2)
    options = {"aggregation": "token_mean", "max_tokens": R}
    with pytest.raises(ValueError, match="2 groups of rollouts, but 1 prompts"):
        group_batch(batch.prompts, two, np.ones((2, N), np.float32), **options)
    one = jax.tree.map(lambda x: x[:1], two)
    with pytest.raises(ValueError, match="advantages must be finite"):
        group_batch(batch.prompts, one, np.full((1, N), np.nan, np.float32), **options)


@pytest.mark.parametrize("hosts", [2, 3])
def test_every_part_is_a_run_of_each_hosts_own_groups(hosts):
    """Of hosts that own unequal numbers of groups; together they are the groups of one host."""
    batch = make([16, 9, 16, 4, 12, 16, 8], [8, 3, 8, 2, 8, 5, 8])
    owners = np.array([0, 1, 0, 0, 1, 0, hosts - 1])
    options = {"shapes": SHAPES, "group_multiple": hosts}
    tokens = hosts * 2 * (16 + N * R)
    parts = microbatches(batch, tokens, owners=Owners(owners, hosts), **options)
    seen = []
    for part in parts:
        assert len(part.groups) % hosts == 0
        for host, run in enumerate(np.split(part.groups, hosts)):
            own = run[run >= 0]
            assert (owners[own] == host).all()
            assert (run[len(own) :] == -1).all()  # padding comes last
            seen += own.tolist()
    assert sorted(seen) == list(range(7))
    whole = microbatches(batch, tokens, **options)
    for name in ("loss_weights", "advantages", "completion_mask"):
        total, expected = (
            sum(float(np.asarray(getattr(p, name), np.float64).sum()) for p in x)
            for x in (parts, whole)
        )
        assert total == pytest.approx(expected)
