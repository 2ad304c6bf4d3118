"""What a rollout waits for with completions of very different lengths: all groups, or enough.

    python benchmarks/bench_tail.py

Lengths are drawn (log-normal), nothing else is made up: the event loop of the sampler, the drawing,
the cut and the collector are those of a run, with a device that only counts. A slot waits while it
has no group that goes on, and what is dropped beyond a cut counts as waiting, too.
"""

import argparse
import collections
import dataclasses
import sys
import types
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.common import show
from evr1.batch.collate import Collator
from evr1.batch.shapes import ShapeTable
from evr1.config import resolve
from evr1.config.base import get_config
from evr1.data.records import Example, Geometry, Row
from evr1.exchange import Published
from evr1.models import load_model
from evr1.rewards import Score, Status, compose
from evr1.rollout.collect import Collector
from evr1.rollout.sample import Drawing, GroupSampler
from evr1.rollout.scoring import RolloutScorer
from evr1.sampler import Engine, Prefix, ResultTokens, Sampler, Sampling
from evr1.sampler.actor import STRETCH_PREFILLS
from evr1.sampler.groups import Stretch
from evr1.telemetry.phases import PhaseTimer
from evr1.types import Rollouts

DEMO_MODEL = Path(__file__).parents[1] / "evr1" / "assets" / "demo_model"
WORD, END, PAD = 2, 1, 0
GEOMETRY = Geometry(2, 2, 2)
Counts = collections.Counter[str]


@dataclasses.dataclass(frozen=True)
class Case:
    """What is simulated.

    Attributes:
        prompts: groups of a step.
        n: completions of a group.
        slots: groups that decode at the same time.
        overdraw: share of the prompts that is drawn for beside them.
        median: completion tokens.
        spread: of the logarithm of the length.
        limit: completion tokens at most.
        window: decode steps of one dispatch.
        prefill_steps: decode steps that reading a prompt takes as long as.
        dispatch_ahead: as on accelerators.
    """

    prompts: int = 256
    n: int = 8
    slots: int = 64
    overdraw: float = 0.0
    median: float = 800
    spread: float = 0.6
    limit: int = 4096
    window: int = 16
    prefill_steps: float = 2.0
    dispatch_ahead: bool = True

    def length(self, request: int, row: int) -> int:
        """Returns the tokens of a completion; over the limit it does not end."""
        noise = np.random.default_rng([request, row]).standard_normal()
        return max(int(self.median * np.exp(self.spread * noise)), 1)


class State(NamedTuple):
    """Slots of the device: int[S, N] each."""

    length: np.ndarray  # of the completion, as it will be
    drawn: np.ndarray
    done: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Device(Engine):
    """The engine's programs without a model: rows end when their length is reached."""

    case: Case = Case()
    counts: Counts = dataclasses.field(default_factory=collections.Counter)

    def init_decode_state(self, params: Any = None) -> State:  # type: ignore[override]
        """Returns empty slots."""
        shape = self.case.slots, self.case.n
        return State(np.zeros(shape, int), np.zeros(shape, int), np.ones(shape, bool))

    def prefill(self, *, ids, questions=None, is_open=None, **_) -> Prefix:
        """Draws the first token of each row, or the next one."""
        requests, rows = np.asarray(ids.requests), np.asarray(ids.draws)
        length = np.vectorize(self.case.length)(requests, rows)
        drawn = np.zeros_like(length) if questions is None else np.asarray(questions.lengths)
        done = np.zeros(length.shape, bool) if is_open is None else ~np.asarray(is_open)
        state, data = self._draw(State(length, drawn, done), 1)
        self.counts["read"] += len(requests)
        self.counts["read again"] += 0 if questions is None else len(requests)
        made: Any = Prefix  # of host arrays, and nothing where a model would have keys
        return made(state, *[None] * 7, data=data)

    def insert(  # type: ignore[override]
        self, prefix: Prefix, state: State, slots: np.ndarray
    ) -> State:
        """Returns the state with what was read; slots outside the range are padding."""
        real = slots < self.case.slots
        self.counts["read"] -= int((~real).sum())
        for old, new in zip(state, prefix.cache, strict=True):
            old[slots[real]] = new[real]
        return state

    def generate(  # type: ignore[override]
        self, params: Any, state: State, drawn: int = 0
    ) -> tuple[State, ResultTokens]:
        """Decodes a window."""
        del params, drawn
        self.counts["windows"] += 1
        self.counts["decoded"] += int((~state.done).any(axis=1).sum())
        state, data = self._draw(state, self.case.window)
        return state, ResultTokens(data, self.case.n)

    def _draw(self, state: State, steps: int) -> tuple[State, np.ndarray]:
        until = np.minimum(state.length, self.case.limit)
        new = np.where(state.done, 0, np.minimum(until - state.drawn, steps))
        at = np.arange(steps)
        valid = at < new[..., None]
        drawn = state.drawn + new
        is_end = valid & (at == new[..., None] - 1) & (drawn == state.length)[..., None]
        done = state.done | (drawn >= until)
        columns = [np.where(is_end, END, WORD), valid, np.zeros_like(valid)]
        columns += [drawn[..., None], done[..., None]]
        data = np.concatenate([x.astype(np.int32) for x in columns], axis=-1)
        return State(state.length, drawn, done), data.reshape(-1, data.shape[-1])


class Simulated(Sampler):
    """The sampler on that device."""

    def __init__(self, case: Case, counts: Counts, prefill_groups: int | None) -> None:
        """See Sampler."""
        super().__init__(
            load_model(str(DEMO_MODEL)),  # nobody runs it
            shapes=ShapeTable((1,), (0,), 4, case.limit),
            geometry=GEOMETRY,
            pos_grid=1,
            n=case.n,
            slots=case.slots,
            window=case.window,
            pad_id=PAD,
            prefill_groups=prefill_groups,
            dispatch_ahead=case.dispatch_ahead,
        )
        self.case, self.counts = case, counts

    def engine(self, sampling: Sampling, prompt_tokens: int, question_tokens: int = 0) -> Any:
        """See Sampler."""
        return Device(
            model=self.model,
            sampling=sampling,
            n=self.n,
            slots=self.slots,
            prompt_tokens=prompt_tokens,
            completion_tokens=self.shapes.completion_tokens,
            window=self.window,
            case=self.case,
            counts=self.counts,
        )

    def prompts(self, examples: Any) -> Any:
        """Nothing reads them."""
        return None


class Actor:
    """As evr1.sampler.actor.Actor, with the simulated sampler."""

    encoder = None
    processor = types.SimpleNamespace(pad_id=PAD)

    def __init__(self, case: Case, counts: Counts) -> None:
        batch = max(1, case.slots // STRETCH_PREFILLS) if case.overdraw else None
        self.sampler, self.window = Simulated(case, counts, batch), case.window
        self.shapes = self.sampler.shapes

    def generate(
        self, params, examples, ids, sampling, *, n, on_finish, stretch: Stretch | None = None
    ) -> Rollouts:
        """See Actor."""
        return self.sampler.generate(params, examples, ids, sampling, on_finish, stretch)

    def texts(self, rollouts: Rollouts) -> list[str]:
        """Returns no words."""
        return [""] * rollouts.lengths.size

    def collator(self, shapes: ShapeTable) -> Collator:
        """See Actor."""
        return Collator(shapes, GEOMETRY, 1, PAD)


class Judged:
    """Scores nothing."""

    def submit(self, texts, rows) -> Future[list[Score]]:
        """Returns a score for each text."""
        done: Future[list[Score]] = Future()
        done.set_result([Score(0.0, 0.0, 1.0, Status.OK)] * len(texts))
        return done

    def rule(self, scores, texts, rows) -> list[Score]:
        """Returns the scores."""
        return list(scores)


@dataclasses.dataclass(frozen=True)
class Watched(GroupSampler):
    """Counts the windows of what is kept."""

    counts: Counts = dataclasses.field(default_factory=collections.Counter)

    def begin(self, published, flights, end=None) -> Drawing:
        """See GroupSampler."""
        drawing = super().begin(published, flights, end)
        if drawing.cut is not None:
            self.counts["kept"] += sum(max(turns - 1, 0) for turns in drawing.cut.turns)
        return drawing


class Prompts:
    """Prompts without end."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def __next__(self) -> list[Example]:
        return self.take(self.batch)

    def take(self, count: int) -> list[Example]:
        """Returns so many."""
        none = np.zeros((0, 12), np.uint8)
        row = Row(0, "", "", "number", "text", (), (), (), "", None, None, "rows:1", {})
        one = np.zeros(1, np.int32)
        zeros = np.zeros((3, 1), np.int32)
        grid = np.zeros((0, 3), np.int32)
        example = Example(row, one, one > 0, zeros, 1, none, grid, np.zeros(0, bool))
        return [example] * count


def make_collector(case: Case, counts: Counts) -> Collector:
    """Returns the collector of a run."""
    config: Any = get_config()
    config.rollout.prompts, config.rollout.n = case.prompts, case.n
    config.rollout.max_completion_tokens, config.rollout.slots = case.limit, case.slots
    config.rollout.overdraw, config.algorithm.correction = case.overdraw, "token_tis"
    settings = resolve(config, has_paths=False)
    actor: Any = Actor(case, counts)
    terms = compose.find_terms((), {}, compose.Settings(case.limit, 0, 4))
    judged: Any = Judged()
    scorer = RolloutScorer(judged, terms, {"accuracy": 0.9, "format": 0.1}, actor.texts, 0.01)
    sampling = Sampling(max_tokens=case.limit, end_ids=(END,))
    sampler = Watched(actor, case.n, sampling, scorer, PhaseTimer(), counts)
    dataset: Any = types.SimpleNamespace(train=Prompts(case.prompts))
    return Collector(dataset, sampler, settings.rollout, settings.dynamic)


def simulate(case: Case, steps: int = 10, begun: int = 4) -> dict[str, Any]:
    """Returns what the steps of a run wait for.

    Args:
        case: what is simulated.
        steps: that are counted.
        begun: steps before them, in which groups begin to be carried.
    """
    counts = Counts()
    collector = make_collector(case, counts)
    carried, stale = list[float](), list[float]()
    for step in range(begun + steps):
        if step == begun:
            counts.clear()
        _, metrics = collector.collect(Published(None, step))
        if step >= begun and case.overdraw:
            carried.append(metrics["rollout/carried"])
            stale.append(metrics["staleness/mean"])
    kept = counts["kept"] if case.overdraw else counts["decoded"]
    read = case.prefill_steps * counts["read"]
    total = counts["windows"] * case.window + read
    waiting = (counts["windows"] - kept / case.slots) * case.window
    return {
        "groups of a step": case.prompts,
        "slots": case.slots,
        "over-drawn": f"{case.overdraw:.0%}",
        "decode steps a step": round(counts["windows"] * case.window / steps),
        "waiting": waiting / total,
        "read again": case.prefill_steps * counts["read again"] / total,
        "groups carried": float(np.mean(carried or [0])),
        "staleness": float(np.mean(stale or [0])),
    }


def main() -> None:
    """Simulates with and without, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=10, help="RL steps that are counted")
    parser.add_argument("--json", help="also write the figures here")
    flags = parser.parse_args()
    cases = [
        Case(slots=slots, overdraw=share)
        for slots, shares in ((64, (0, 0.05, 0.1, 0.25)), (256, (0, 0.1, 0.5, 1.0)))
        for share in shares
    ]
    rows = [simulate(case, flags.steps) for case in cases]
    show("What a rollout waits for", rows, flags.json)


if __name__ == "__main__":
    main()
