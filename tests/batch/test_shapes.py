"""Buckets that are planned."""

import dataclasses

import jax
import numpy as np
import pytest

from configs import base
from evr1.batch.shapes import plan_shapes, with_parts
from evr1.config import resolve


@pytest.mark.parametrize(
    ("backend", "limit", "bucket"),
    [("cpu", 2048, 544), ("gpu", 2048, 544), ("tpu", 2048, 640), ("tpu", 1024, 544)],
)
def test_long_prompts_have_coarser_buckets_on_tpus(monkeypatch, backend, limit, bucket):
    """A prompt of 515 tokens: the next multiple of 32, or of 128."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    made = plan_shapes(
        resolve(base.get_config(), has_paths=False).shapes,
        np.array([515]),
        [np.zeros((0, 3), int)],
        merge_size=2,
        max_prompt_tokens=limit,
        completion_tokens=8,
    )
    assert made.prompt_tokens[-1] == bucket


def planned(shapes=None, group=None):
    """Rows of 40 and 500 tokens, many and few, the long ones with 8 frames of 16 patches."""
    lengths = np.array([40] * 30 + [500] * 10)
    grids = [np.zeros((0, 3), int)] * 30 + [np.array([[8, 4, 4]])] * 10
    settings = resolve(base.get_config(), has_paths=False).shapes
    table = plan_shapes(
        dataclasses.replace(settings, **(shapes or {})),
        lengths,
        grids,
        merge_size=2,
        max_prompt_tokens=512,
        completion_tokens=64,
    )
    if group is None:
        return table
    return with_parts(table, lengths, grids, group=group, minibatch_groups=8)


def test_few_pairs_hold_all_rows():
    table = planned()
    assert table.pairs == ((64, 0), (512, 8))
    assert table.parts == ()
    assert table.pair(40, 0) == (64, 0)
    assert table.pair(40, 1) == table.pair(100, 0) == (512, 8)
    assert table.cache_tokens(40) == 512  # one program decodes, whatever the longest prompt


def test_buckets_of_the_config_are_paired_as_rows_need_them():
    table = planned({"prompt_tokens": (64, 256, 512), "vision_rows": (0, 4, 8)})
    assert table.pairs == ((64, 0), (512, 8))


def test_parts_are_few_and_hold_all():
    """Completions of 64 tokens, 4 of them: where prompts are short, their length matters."""
    table = planned(group=(4, 64))
    assert table.parts[-1] == (512, 64, 8)
    assert (64, 16, 0) in table.parts or (64, 32, 0) in table.parts
    assert len(table.parts) <= 4
    for need in ((40, 64, 0), (500, 1, 8), (40, 0, 0), (500, 64, 0)):
        p, r, f = table.part(*need, 64)
        assert p >= need[0]
        assert r >= need[1]
        assert f >= need[2]
        assert (p, r, f) in table.parts
    assert table.part(40, 9, 0, 32) == (64, 16, 0)  # of another limit: as without parts
