"""A drawer over rows whose answers follow from the request id: no model, no media."""

import types
from concurrent.futures import Future

import numpy as np

from configs import base
from evr1 import config as config_lib
from evr1.data.records import Example, Row
from evr1.draw import Drawer
from evr1.rewards import Score, Status, compose
from evr1.sampler.sampling import Sampling
from evr1.types import Rollouts
from evr1.writer import PhaseTimer

N, R, END, PAD = 4, 6, 90, 0


class Words:
    """A processor of words: `w7 w8` are the tokens 7 and 8, `<end>` is the end token."""

    end_ids = (END, 91)
    end_id = END
    vision = ("<image>", "<video>", "", "")
    geometry = None
    has_unknown_ids = False

    def check_ids(self, row, ids):
        pass

    def tokenize(self, text):
        return [END if w == "<end>" else int(w[1:]) for w in text.split()]

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
    return Example(one, ids, off, np.zeros((3, 1), np.int32), 1, none, off, off[:0])


class Cycle:
    """The rows in file order, over and over, some at a time; its position is its state."""

    def __init__(self, rows, size):
        self.rows, self.size, self.at = rows, size, 0

    def __next__(self):
        at = range(self.at, self.at + self.size)
        self.at += self.size
        return [example(self.rows[i % len(self.rows)]) for i in at]


class Scripted:
    """Request i has `right(i)` completions that say w1, the others say w2; one token and the end.

    The token before them is the request's number, so that every completion tells whose it is.
    """

    def __init__(self, right):
        self.right, self.requests = right, []

    def generate(self, params, examples, ids, sampling, on_finish):
        self.requests += ids
        completions = np.full((len(ids), N, R), PAD, np.int32)
        for g, i in enumerate(ids):
            completions[g, :, 0] = 20 + i
            completions[g, :, 1] = np.where(np.arange(N) < self.right(i), 1, 2)
            completions[g, :, 2] = END
        shape = (len(ids), N)
        logprobs = np.where(completions != PAD, -0.5, 0).astype(np.float32)
        out = Rollouts(completions, logprobs, np.full(shape, 3, np.int32), np.ones(shape, bool))
        for g in range(len(ids)):
            on_finish(g, Rollouts(*(part[g] for part in out)))
        return out


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
    """A config of a few groups; fields as `dynamic__enabled`."""
    c = base.get_config()
    c.rollout.prompts, c.rollout.n, c.rollout.max_completion_tokens = prompts, N, R
    for name, value in fields.items():
        group, field = name.split("__")
        c[group][field] = value
    config_lib.fill_algorithm(c.algorithm)
    return c


def make_drawer(config, right, rows=None):
    rows = [row(i) for i in range(8)] if rows is None else rows
    by_source = {one.source: example(one) for one in rows}
    data = types.SimpleNamespace(
        train=Cycle(rows, config.dynamic.draw_prompts or config.rollout.prompts),
        train_rows=rows,
        processor=Words(),
        example=by_source.__getitem__,
    )
    sampling = Sampling(max_tokens=R)
    policy = types.SimpleNamespace(sampler=Scripted(right), sampling=sampling, encoder=None)
    terms = compose.find_terms((), {}, compose.Settings(R, 0, 4))
    return Drawer(config, policy, data, Checker(), terms)


def draw(drawer, version=0):
    return drawer.next_batch(None, version, PhaseTimer())


def requests(groups):
    """The request id of each group, from its first completion."""
    return [int(g.rollouts.completions[0, 0]) - 20 for g in groups]
