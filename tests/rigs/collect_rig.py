"""A collector over rows whose answers follow from the request id: no model, no media."""

import dataclasses
import types
from concurrent.futures import Future

import numpy as np

from configs import base
from evr1.batch.collate import Collator
from evr1.batch.shapes import ShapeTable
from evr1.config import resolve
from evr1.data.records import Example, Geometry, Row
from evr1.exchange import Published
from evr1.rewards import Score, Status, compose
from evr1.rollout.collect import Collector
from evr1.rollout.mixing import Mixer
from evr1.rollout.sample import GroupSampler
from evr1.rollout.scoring import RolloutScorer
from evr1.rollout.temporal import TERM, TemporalBonus
from evr1.sampler.groups import Progress
from evr1.sampler.sampling import Sampling
from evr1.telemetry.phases import PhaseTimer
from evr1.types import Rollouts

N, R, END, PAD = 4, 6, 90, 0


class Words:
    """A processor of words: `w7 w8` are the tokens 7 and 8, `<end>` is the end token."""

    end_ids = (END, 91)
    end_id = END
    pad_id = PAD
    vision = ("<image>", "<video>", "", "")
    geometry = None
    has_unknown_ids = False
    think_open = False

    def check_ids(self, row, ids):
        pass

    def prompt_text(self, row):
        return row.problem

    def tokenize(self, text):
        return [END if w == "<end>" else int(w[1:]) for w in text.split()]

    completion_ids = tokenize

    def decode(self, ids):
        return " ".join(f"w{i}" for i in ids if i not in self.end_ids)


def row(index, videos=(), **extra):
    return Row(
        index=index,
        problem="?",
        answer="w1",
        problem_type="number",
        data_type="video" if videos else "text",
        images=(),
        videos=videos,
        options=(),
        problem_id=str(index),
        video_start=None,
        video_end=None,
        source=f"rows.jsonl:{index + 1}",
        extra=extra,
    )


def example(one):
    ids = np.array([one.index + 10], np.int32)
    off = np.zeros(1, bool)
    none = np.zeros((0, 12), np.uint8)
    grid = np.zeros((0, 3), np.int32)
    return Example(one, ids, off, np.zeros((3, 1), np.int32), 1, none, grid, off[:0])


class Cycle:
    """The rows in file order, over and over, some at a time; its position is its state."""

    def __init__(self, rows, size):
        self.rows, self.size, self.at = rows, size, 0

    def __next__(self):
        return self.take(self.size)

    def take(self, count):
        at = range(self.at, self.at + count)
        self.at += count
        return [example(self.rows[i % len(self.rows)]) for i in at]


class Scripted:
    """An actor: request i has `right(i)` completions that say w1, the others say w2; then the end.

    The token before them is the request's number, so that every completion tells whose it is.
    """

    processor = Words()
    encoder = None
    shapes = ShapeTable((1,), (0,), 4, R)

    def __init__(self, right):
        self.right, self.requests = right, []

    def generate(self, params, examples, ids, sampling, *, n, on_finish):
        self.requests += ids
        rows = n + sampling.greedy_rows
        completions = np.full((len(ids), rows, R), PAD, np.int32)
        for g, i in enumerate(ids):
            completions[g, :, 0] = 20 + i
            completions[g, :, 1] = np.where(np.arange(rows) < self.right(i), 1, 2)
            completions[g, :, 2] = END
        shape = (len(ids), rows)
        logprobs = np.where(completions != PAD, -0.5, 0).astype(np.float32)
        out = Rollouts(completions, logprobs, np.full(shape, 3, np.int32), np.ones(shape, bool))
        for g in range(len(ids)):
            on_finish(g, Rollouts(*(part[g] for part in out)))
        return out

    def texts(self, rollouts):
        rows = zip(rollouts.completions.reshape(-1, R), rollouts.lengths.reshape(-1), strict=True)
        return [self.processor.decode(tokens[:length].tolist()) for tokens, length in rows]

    def collator(self, shapes):
        return Collator(shapes, Geometry(2, 2, 2), 1, PAD)


class Patient(Scripted):
    """An actor whose completions have 3 to 6 tokens, `turns(i)` of request i the longest; the
    others have 3. A turn draws one token, of which the weights' version is the log-probability.
    """

    window, slots = 1, 3

    def __init__(self, right, turns):
        super().__init__(right)
        self.turns = turns

    def generate(self, params, examples, ids, sampling, *, n, on_finish, stretch=None):
        self.requests += ids
        rows = n + sampling.greedy_rows
        begun = [None] * len(ids) if stretch is None else stretch.begun
        state = [b or self._empty(rows) for b in begun]
        out = [self._empty(rows) for _ in ids]
        waiting, busy, progress = list(range(len(ids))), list[int](), {}
        while waiting or busy:
            while waiting and len(busy) < self.slots:
                busy.append(waiting.pop(0))
            for g in list(busy):
                out[g] = state[g] = self._turn(state[g], ids[g], params)
                is_done = not state[g].is_open.any()
                progress[g] = Progress(progress.get(g, (0,))[0] + 1, is_done)
                if is_done:
                    busy.remove(g)
                    on_finish(g, state[g])
            if stretch is not None and stretch.is_over(progress):
                for g in busy:
                    on_finish(g, state[g])
                break
        return Rollouts(*(np.stack(x) for x in zip(*out, strict=True)))

    def _empty(self, rows):
        shape, none = (rows, R), np.zeros(rows, np.int32)
        return Rollouts(
            np.full(shape, PAD, np.int32), np.zeros(shape, np.float32), none, none.astype(bool)
        )

    def _turn(self, before, request, version):
        new = Rollouts(*(x.copy() for x in before))
        for row in np.flatnonzero(before.is_open):
            at = before.lengths[row]
            last = (self.turns(request) if row == 0 else 3) - 1
            word = [20 + request, 1 if row < self.right(request) else 2, *[10] * R][at]
            new.completions[row, at] = END if at == last else word
            new.logprobs[row, at] = -1 - version
            new.lengths[row] += 1
            new.finished[row] = at == last
        return new


class Checker:
    """A completion that says w1 is right; one that says w3 breaks the scorer."""

    def score_batch(self, texts, rows):
        def score(text):
            if "w3" in text.split():
                return Score(0.0, 0.0, 0.0, Status.ERROR, detail="broke")
            is_right = float("w1" in text.split())
            return Score(is_right, is_right, 1.0, Status.OK)

        return [score(text) for text in texts]

    def submit(self, texts, rows):
        done = Future()
        done.set_result(self.score_batch(texts, rows))
        return done

    def rule(self, scores, texts, rows):
        return list(scores)


def settings(prompts=4, **fields):
    """Settings of a few groups; fields as `dynamic__enabled`."""
    c = base.get_config()
    c.rollout.prompts, c.rollout.n, c.rollout.max_completion_tokens = prompts, N, R
    for name, value in fields.items():
        group, field = name.split("__")
        c[group][field] = value
    return resolve(c, has_paths=False)


def make_collector(settings, right, rows=None, shuffled=None, actor=None):
    """A collector; `shuffled` is the actor of T-GRPO's second draw, `actor` that of the first."""
    rows = [row(i) for i in range(8)] if rows is None else rows
    by_source = {one.source: example(one) for one in rows}
    dataset = types.SimpleNamespace(
        train=Cycle(rows, settings.dynamic.draw_prompts or settings.rollout.prompts),
        rows=types.SimpleNamespace(train=rows),
        example=by_source.__getitem__,
    )
    a, r = settings.algorithm, settings.rollout
    weights = {"accuracy": 0.9, "format": 0.1} | (
        {TERM: a.temporal_bonus} if a.temporal_bonus else {}
    )
    actor = actor or Scripted(right)
    sampling = Sampling(max_tokens=r.max_completion_tokens, greedy_rows=int(a.advantage == "remax"))
    terms = compose.find_terms((), {}, compose.Settings(R, 0, 4))
    scorer = RolloutScorer(Checker(), terms, weights, actor.texts, 0.01)
    sampler = GroupSampler(actor, r.n, sampling, scorer, PhaseTimer())
    temporal = mixer = None
    if a.temporal_bonus:
        other = dataclasses.replace(sampler, actor=shuffled, n=a.temporal_rollouts)
        temporal = TemporalBonus(other, None, bonus=a.temporal_bonus, margin=a.temporal_margin)
    if settings.mix.enabled or settings.replay.enabled:
        mixer = Mixer(settings.mix, settings.replay, sampler, rows)
    return Collector(dataset, sampler, r, settings.dynamic, temporal=temporal, mixer=mixer)


def collect(collector, version=0):
    """The groups of the next batch, and the metrics of making it."""
    batch, metrics = collector.collect(Published(version, version))
    return list(batch.groups), metrics


def requests(groups):
    """The request id of each group, from its first completion."""
    return [int(g.rollouts.completions[0, 0]) - 20 for g in groups]
