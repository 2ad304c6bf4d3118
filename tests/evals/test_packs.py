"""Packs: which questions share what stands before them, without a model."""

import dataclasses

import evals_rig as rig
import numpy as np
import pytest

from evr1.data.processor import Processor
from evr1.data.records import Media
from evr1.evals.packs import Asker, sizes_of
from evr1.evals.tasks.base import Sample, Show


@pytest.fixture(scope="module")
def processor():
    return Processor.from_hf(str(rig.MODEL))


def asker(folder, processor, prompts, **fields):
    """Asks each sample by the prompt of its id."""
    return Asker(folder, lambda sample: prompts[sample.id], processor, 8, **fields)


def samples(prompts):
    return [Sample(id, {}, ()) for id in prompts]


def image(shade):
    return Media(np.full((1, 64, 64, 3), shade, np.uint8), np.zeros(0), is_video=False)


def video(frames, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, 64, 64, 3), np.uint8)
    return Media(pixels, np.arange(frames) / 2, is_video=True, sample_fps=2.0)


def packed(made, prompts, media):
    """The packs and examples by the ids of their samples."""
    packs = made.packs(samples(prompts), sizes_of(media, made.processor))
    examples = made.examples(packs, media)
    return {
        tuple(sample.id for sample in pack.samples): (pack, example)
        for pack, example in zip(packs, examples, strict=True)
    }


def test_a_head_and_a_tail_are_the_whole_prompt(tmp_path, processor):
    """Images and videos in any order, several, between texts, none; an odd number of frames."""
    prompts = {
        "mixed": (Show(1), "Now ", Show(0), " and ", Show(2), "what?"),
        "text": ("What?",),
        "twice": ("See ", Show(0), Show(0), "?"),
        "part": (Show(0, (0, 2)), "then", Show(0, (2, 3)), "?"),
    }
    media = [video(5), image(9), video(3, 1)]
    made = asker(tmp_path, processor, prompts)
    for (id,), (pack, example) in packed(made, prompts, media).items():
        row, shown, _ = made.row(Sample(id, {}, ()), media)
        whole = processor.encode(row, shown, raw=True)
        tokens = [*example.tokens.tolist(), *pack.tails[0]]
        assert tokens == whole.tokens.tolist()
        end = pack.head_tokens
        after = example.next_position + np.arange(len(pack.tails[0]))
        places = np.concatenate([example.positions, np.tile(after, (3, 1))], axis=1)
        assert (places == whole.positions).all()
        assert not whole.is_visual[end:].any()
        assert (example.patches == whole.patches).all()


def test_the_same_placeholders_of_other_pixels_are_no_common_head(tmp_path, processor):
    """Two images in another order, and other frames of a video without time marks."""
    prompts = {"a": (Show(0), Show(1), "?"), "b": (Show(1), Show(0), "?")}
    found = packed(asker(tmp_path, processor, prompts), prompts, [image(10), image(200)])
    assert sorted(found) == [("a",), ("b",)]
    means = [example.patches[: len(example.patches) // 2].mean() for _, example in found.values()]
    assert sorted(means) == [10, 200]

    plain = dataclasses.replace(processor, has_time_marks=False)
    prompts = {"a": (Show(0, (0, 2)), "?"), "b": (Show(0, (2, 4)), "?"), "c": (Show(0, (2, 4)), "")}
    found = packed(asker(tmp_path, plain, prompts), prompts, [video(8)])
    assert sorted(found) == [("a",), ("b", "c")]


@pytest.mark.parametrize("part", [Show(1), Show(-1), Show(0, (4, 6)), Show(0, (-1, 2))])
def test_what_is_not_there_is_named(tmp_path, processor, part):
    made = asker(tmp_path, processor, {"a": (part, "?")})
    media = [video(8)]
    for given in (media, sizes_of(media, processor)):
        with pytest.raises(ValueError, match="correct the prompt"):
            made.row(Sample("a", {}, ()), given)


def test_a_pack_has_few_numbers_of_rows_and_never_more_than_are_asked_for(tmp_path, processor):
    prompts = dict.fromkeys("abcdefg", ("Who?",))
    rows = {}
    for most in (1, 3, 5, 8):
        made = dataclasses.replace(asker(tmp_path, processor, prompts), rows=most)
        packs = made.packs(samples(prompts), ())
        assert sorted(s.id for pack in packs for s in pack.samples) == list(prompts)
        rows[most] = len(packs), made.key(packs, (), 2).rows
    assert rows == {1: (7, 2), 3: (3, 6), 5: (2, 8), 8: (1, 16)}


@pytest.mark.parametrize(("words", "room"), [(20, 32), (40, 64), (70, 96), (100, 128)])
def test_questions_are_padded_by_a_third_at_most(tmp_path, processor, words, room):
    made = asker(tmp_path, processor, {"a": ()})
    [pack] = made.packs(samples({"a": ()}), ())
    long = pack._replace(tails=((7,) * words,))
    assert made.key([long], (), 1).question_tokens == room
