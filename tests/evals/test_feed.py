"""Bundles on their way to the model: which samples of one cannot be asked, and an early end."""

import os
import time

import evals_rig as rig
import pytest

from evr1.data.media.decode import DecodePool, Job
from evr1.data.media.source import MediaSource, Request
from evr1.data.processor import Processor
from evr1.data.records import Budgets
from evr1.evals.feed import Failure, Opener, Planned, waiting_threads
from evr1.evals.packs import Asker, Bundle
from evr1.evals.tasks.base import Sample, Subtitles


@pytest.fixture(scope="module")
def processor():
    return Processor.from_hf(str(rig.MODEL))


def ask(sample):
    if sample.id == "odd":
        raise ValueError("odd: no question")
    return Subtitles("Said: "), "Who? " * (50 if sample.id == "long" else 1)


@pytest.fixture
def opener(tmp_path, processor):
    with DecodePool(1, 60.0) as pool:
        source = MediaSource(budgets=Budgets(), geometry=processor.geometry, pool=pool)
        yield Opener(Asker(tmp_path, ask, processor, 8), source, 1, 100)


SAMPLES = tuple(
    Sample(id, {}, (), subtitles="none.srt" if id == "silent" else "")
    for id in ("a", "long", "odd", "silent", "z")
)


def test_a_prompt_that_cannot_be_asked_is_no_fault_of_the_others(opener):
    plans = opener.plan(Bundle((), SAMPLES), frozenset())
    [planned] = [each for each in plans if isinstance(each, Planned)]
    failures = [each for each in plans if isinstance(each, Failure)]
    assert [(f.samples[0].id, f.reason) for f in failures] == [
        ("long", "too_long"),
        ("odd", "prompt"),
        ("silent", "subtitles"),
    ]
    assert {len(failure.samples) for failure in failures} == {1}
    assert planned.waiting == {"a", "z"}
    opened = opener.open(planned)
    assert not isinstance(opened, Failure)
    assert [sample.id for pack in opened.packs for sample in pack.samples] == ["a", "z"]


def test_failures_that_are_written_already_are_not_planned_again(opener):
    done = frozenset({"long", "odd", "silent", "a"})
    [planned] = opener.plan(Bundle((), SAMPLES), done)
    assert isinstance(planned, Planned)
    assert planned.waiting == {"z"}
    assert [sample.id for sample in planned.bundle.samples] == ["a", "z"]  # packs as they were
    assert opener.plan(Bundle((), SAMPLES), done | {"z"}) == []
    [failure] = opener.plan(Bundle((), SAMPLES), frozenset({"a", "odd", "silent", "z"}))
    assert isinstance(failure, Failure)
    assert [sample.id for sample in failure.samples] == ["long"]


def test_a_medium_that_is_not_there_fails_all_who_wait(opener):
    [failure] = opener.plan(Bundle((Request("image", "none.png"),), SAMPLES), frozenset("a"))
    assert isinstance(failure, Failure)
    assert failure.reason == "missing"
    assert len(failure.samples) == 4


def test_an_interrupt_does_not_wait_for_a_decoder_that_hangs(tmp_path, processor):
    pipe = tmp_path / "a.png"
    os.mkfifo(pipe)
    job = Job("image", str(pipe), Budgets(), processor.geometry)
    opened = []

    def interrupted(pool):
        with waiting_threads(pool, 1) as threads:
            opened.extend(threads.submit(pool.decode, job) for _ in range(2))
            opened.append(os.open(pipe, os.O_WRONLY))  # waits until the decoder reads
            raise KeyboardInterrupt

    with DecodePool(1, 300.0) as pool:
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            interrupted(pool)
        assert time.monotonic() - begun < 60
    hangs, never, writer = opened
    os.close(writer)
    assert never.cancelled()
    assert "closed" in str(hangs.exception())
