"""Buckets that are planned."""

import jax
import numpy as np
import pytest

from configs import base
from evr1.batch.shapes import plan_shapes
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
