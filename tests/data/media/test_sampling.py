import numpy as np
import pytest
from hf import load_torch

from evr1.data.errors import MediaError
from evr1.data.media import sampling
from evr1.data.records import Budgets


@pytest.mark.parametrize(
    ("total", "source_fps", "fps", "max_frames", "n"),
    [  # the reference's own numbers
        (300, 30.0, 2.0, 128, 20),
        (9000, 30.0, 2.0, 128, 128),
        (60, 30.0, 2.0, 128, 4),
        (3, 30.0, 2.0, 128, 2),
        (100, 1.0, 2.0, 128, 100),
        (600, 30.0, 2.0, 7, 6),  # the limit is made even downwards
        (600, 30.0, 2.0, 3, 2),  # ... and outranks the least of 4
        (150, 30.0, 0.5, 128, 4),
        (150, 30.0, 7.3, 128, 36),
    ],
)
def test_frame_counts_of_the_reference(total, source_fps, fps, max_frames, n):
    indices = sampling.sample_indices(total, source_fps, fps, max_frames)
    assert len(indices) == n
    assert (indices[0], indices[-1]) == (0, total - 1)
    assert (np.diff(indices) > 0).all()


def test_halves_are_rounded_to_even():
    # linspace(0, 9, 4) = 0, 3, 6, 9; linspace(0, 13, 3) would hold 6.5
    assert sampling._linspace_rounded(0, 9, 4).tolist() == [0, 3, 6, 9]
    assert sampling._linspace_rounded(0, 13, 3).tolist() == [0, 6, 13]
    assert sampling._linspace_rounded(0, 15, 3).tolist() == [0, 8, 15]


def test_very_short_videos():
    assert sampling.sample_indices(1, 30.0, 2.0, 128).tolist() == [0, 0]
    assert sampling.sample_indices(2, 30.0, 2.0, 128).tolist() == [0, 1]
    assert sampling.sample_indices(3, 30.0, 2.0, 128).tolist() == [0, 2]
    with pytest.raises(ValueError, match="no frames"):
        sampling.sample_indices(0, 30.0, 2.0, 128)
    with pytest.raises(ValueError, match="video_max_frames=1"):
        sampling.sample_indices(10, 30.0, 2.0, 1)


@pytest.mark.parity
def test_indices_equal_torch():
    torch = load_torch()
    rng = np.random.default_rng(0)
    differs_in_float64 = 0
    for _ in range(3000):
        total, first = int(rng.integers(2, 20000)), int(rng.integers(0, 5000))
        n = 2 * int(rng.integers(1, min(total // 2, 384) + 1))
        theirs = torch.linspace(first, first + total - 1, n).round().long().numpy()
        np.testing.assert_array_equal(
            sampling._linspace_rounded(first, first + total - 1, n), theirs
        )
        plain = np.linspace(first, first + total - 1, n).round().astype(int)
        differs_in_float64 += (plain != theirs).any()
    assert differs_in_float64  # the test can see the difference


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, (0, 300)),
        (2.0, 4.0, (60, 61)),
        (9.0, 99.0, (270, 30)),
        (0.0, 0.01, (0, 1)),
        (2.01, 2.04, (61, 1)),
    ],
)
def test_clips_in_seconds(start, end, expected):
    assert sampling.clip_range(300, 30.0, start, end) == expected


def test_a_clip_without_a_frame_is_refused():
    for start, end in ((2.01, 2.02), (11.0, None)):
        with pytest.raises(ValueError, match="no frame between"):
            sampling.clip_range(300, 30.0, start, end)


def test_a_clip_past_the_last_frame_names_it():
    times = (
        np.arange(11) * 0.8
    )  # of a varying rate: the last is at 8 s, 11 at the mean rate end 8.8
    with pytest.raises(MediaError, match=r"between 9 s and the end; the last one is at 8\.00 s"):
        sampling.take_by_times("v", times, Budgets(), 9.0, None)
