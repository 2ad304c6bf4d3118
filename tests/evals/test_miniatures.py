"""Every benchmark on its miniature: files, media, prompts, and our rule without any model."""

import dataclasses
import itertools
import math
import random

import miniatures
import pytest

from evr1.data.media import decode
from evr1.data.records import Budgets, Geometry
from evr1.evals import prepare, show
from evr1.evals.tasks import TASKS, metrics
from evr1.evals.tasks.base import Record, Show

ONE_FRAME = Budgets(video_max_frames=2, video_max_pixels=64 * 96, image_max_pixels=64 * 96)
GEOMETRY = Geometry(16, 2, 2)
EACH = pytest.mark.parametrize("name", TASKS)
RULED = [name for name in TASKS if name != "mlvu_generation"]  # all of which is left to a judge


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Returns (folder, Mini, samples) of a task; each is written once."""
    root, known = tmp_path_factory.mktemp("miniatures"), {}

    def get(name):
        if name not in known:
            mini = miniatures.write(name, root / name)
            known[name] = root / name, mini, list(TASKS[name].load(root / name))
        return known[name]

    return get


def records(task, samples, responses, profile="evr1"):
    return [
        Record(sample, task.rules[profile](sample.doc, response))
        for sample, response in zip(samples, responses, strict=True)
    ]


def means_of(task, rows, profile="evr1"):
    return task.aggregates.get(profile, metrics.overall)(rows)


def headline(task, rows):
    return next(iter(means_of(task, rows).values()))


def test_there_is_one_of_every_task():
    assert miniatures.TASKS.keys() == TASKS.keys()


@EACH
def test_a_miniature_is_a_complete_copy(name, written):
    folder, mini, samples = written(name)
    source = dataclasses.replace(TASKS[name].source, n=mini.n, counts=mini.counts)
    stock = prepare.take_stock(dataclasses.replace(TASKS[name], source=source), folder)
    assert stock.is_complete, prepare.report(stock)
    assert stock.counts == mini.counts
    assert len(samples) == mini.n
    assert mini.golds.keys() <= {sample.id for sample in samples}


@EACH
def test_its_media_decode(name, written):
    folder, _, samples = written(name)
    media = {medium for sample in samples for medium in sample.media}
    for medium in media:
        path = str(folder / medium.path)
        clip = {"start": medium.start_s, "end": medium.end_s, "frames_per_s": medium.frames_per_s}
        job = decode.Job(medium.kind, path, ONE_FRAME, GEOMETRY, **clip)
        frames = job.run().frames
        assert frames.std() > 5, medium  # something is to be seen


@EACH
def test_every_prompt_renders_for_every_sample(name, written):
    _, _, samples = written(name)
    for sample, (profile, prompt) in itertools.product(samples, TASKS[name].prompts.items()):
        parts = prompt(sample)
        shown = [part.medium for part in parts if isinstance(part, Show)]
        assert shown == sorted(set(shown)), profile
        assert shown[0] == 0, profile
        text = show.render(parts, sample)
        assert all(medium.path in text for medium in sample.media[: len(shown)]), profile
        assert len([part for part in parts if isinstance(part, str) and part.strip()]), profile


@pytest.mark.parametrize("name", RULED)
def test_gold_is_right_in_every_form(name, written):
    _, mini, samples = written(name)
    task, rule = TASKS[name], TASKS[name].rules["evr1"]
    samples = [sample for sample in samples if sample.id in mini.golds]
    for sample in samples:
        gold = mini.golds[sample.id]
        scores = {form: rule(sample.doc, form).score for form in gold.forms}
        assert scores == pytest.approx(dict.fromkeys(gold.forms, 1.0)), sample.id
        assert (rule(sample.doc, gold.damaged).score or 0) < 1 - 1e-6, sample.id
    right = records(task, samples, [mini.golds[sample.id].forms[0] for sample in samples])
    assert headline(task, right) == pytest.approx(1)
    damaged = records(task, samples, [mini.golds[sample.id].damaged for sample in samples])
    assert headline(task, damaged) < 0.7
    one = headline(task, [damaged[0], *right[1:]])
    assert one < 1 - 1e-6


@EACH
def test_a_response_that_says_nothing_scores_nothing(name, written):
    _, _, samples = written(name)
    task = TASKS[name]
    for text in ("", "  \n", "It cannot be determined."):
        means = means_of(task, records(task, samples, [text] * len(samples)))
        assert all(value == 0 or math.isnan(value) for value in means.values())


@EACH
def test_a_constant_response_scores_its_prior(name, written):
    _, mini, samples = written(name)
    task = TASKS[name]
    for constant in ("A", "B", "C", "Yes"):
        rows = records(task, samples, [constant] * len(samples))
        forms = [{form.casefold() for form in gold.forms} for gold in mini.golds.values()]
        prior = sum(constant.casefold() in each for each in forms) / len(samples)
        assert metrics.overall(rows)["accuracy"] == pytest.approx(prior), constant


@EACH
def test_the_order_of_samples_changes_nothing(name, written):
    _, mini, samples = written(name)
    task, rng = TASKS[name], random.Random(0)
    golds = [mini.golds.get(s.id) for s in samples]
    responses = [rng.choice([*g.forms, g.damaged, ""]) if g else "" for g in golds]
    for profile in task.rules:
        rows = records(task, samples, responses, profile)
        means = means_of(task, rows, profile)
        rng.shuffle(rows)
        assert repr(means_of(task, rows, profile)) == repr(means), profile
