"""The scenes of the demo's clips, their frames, and questions about them with exact answers.

A clip lasts 3.625 s at 8 frames a second. Sampled at 4 fps with at most 8 frames, as in the demo,
its frames lie exactly at 0, 0.5, ..., 3.5 s; whatever an answer depends on changes on half
seconds only, so each answer is true of the sampled frames and not just of the file.

The digits are the 1,797 handwritten 8 x 8 scans of scikit-learn, split once and for all into the
warm-up of the shipped model, training, and the held-out rows. All else follows from (seed, split,
clip number).
"""

import dataclasses
import gzip
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 48  # pixels on a side of a frame
FPS = 8
FRAMES = 29
SPLITS = ("warmup", "train", "heldout")
HEIGHTS = (12, 16, 20)  # pixels
SPEEDS = (4, 6, 8, 10)  # pixels per second, even: half-second positions are whole pixels
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
CORNERS = {"top left": (0, 0), "top right": (1, 0), "bottom left": (0, 1), "bottom right": (1, 1)}
CELL = SIDE // 3  # several digits stand in cells of a 3 x 3 grid
SIZE_WORDS = {12: "small", 16: "medium", 20: "large"}
_SCAN_SHARES = {"warmup": 0.4, "train": 0.4, "heldout": 0.2}

Glyphs = Mapping[int, Sequence[np.ndarray]]  # digit -> its scans, uint8, cropped to the ink


@dataclasses.dataclass(frozen=True)
class Actor:
    """One digit of a scene. Lengths in pixels, times in seconds, speeds in pixels per second.

    Attributes:
        x: left edge of the ink at time 0.
        y: upper edge of the ink at time 0.
        start: first moment at which it is visible.
        end: first moment at which it is no longer visible.
    """

    digit: int
    glyph: np.ndarray  # uint8[height, width], 0 = background, 255 = white
    x: int
    y: int
    vx: int = 0
    vy: int = 0
    start: float = 0.0
    end: float = float("inf")

    def visible(self, t: float) -> bool:
        """Returns whether the digit is shown at `t` seconds."""
        return self.start <= t < self.end

    def box(self, t: float) -> tuple[int, int, int, int]:
        """Returns the left, upper, right and lower edge of the ink at `t` seconds.

        >>> Actor(7, np.zeros((16, 10), np.uint8), x=2, y=4, vx=6).box(1.0)
        (8, 4, 18, 20)
        """
        height, width = self.glyph.shape
        x, y = round(self.x + self.vx * t), round(self.y + self.vy * t)
        return x, y, x + width, y + height


@dataclasses.dataclass(frozen=True)
class Scene:
    """The content of a clip, or of an image: the state at time 0."""

    kind: str
    actors: tuple[Actor, ...]
    background: int  # brightness, 0 to 255


@dataclasses.dataclass(frozen=True)
class Question:
    """A problem about one scene and its exact answer."""

    problem: str
    answer: str
    problem_type: str
    options: tuple[str, ...] = ()


def load_scans() -> tuple[np.ndarray, np.ndarray]:
    """Returns all scans, float64[1797, 8, 8] from 0 (paper) to 16 (ink), and their digits.

    Read from scikit-learn's data file, as its load_digits does, without the seconds of its import.

    Raises:
        ValueError: scikit-learn is not installed.
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise ValueError("the demo's digits come with scikit-learn: pip install scikit-learn")
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(int)


def load_glyphs(split: str) -> Glyphs:
    """Returns the scans of a split, cropped to their ink. Splits share no scan.

    Raises:
        ValueError: no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    scans, target = load_scans()
    return {d: [_crop(scans[i]) for i in scan_numbers(target, d, split)] for d in range(10)}


def scan_numbers(target: np.ndarray, digit: int, split: str) -> np.ndarray:
    """Returns the numbers of the scans of `digit` in `split`; they are the same for every seed."""
    order = np.random.default_rng([1797, digit]).permutation(np.flatnonzero(target == digit))
    shares = np.cumsum([_SCAN_SHARES[s] for s in SPLITS])
    ends = (shares * len(order)).round().astype(int)
    i = SPLITS.index(split)
    return order[(ends[i - 1] if i else 0) : ends[i]]


def render(scene: Scene, t: float) -> np.ndarray:
    """Returns the frame at `t` seconds, uint8[SIDE, SIDE, 3]."""
    frame = np.full((SIDE, SIDE), scene.background, np.uint8)
    for actor in scene.actors:
        if actor.visible(t):
            x0, y0, x1, y1 = actor.box(t)
            paper = scene.background
            frame[y0:y1, x0:x1] = paper + actor.glyph.astype(int) * (255 - paper) // 255
    return np.repeat(frame[:, :, None], 3, axis=2)


def draw(
    split: str, seed: int, clip: int, glyphs: Glyphs, per_clip: int
) -> tuple[Scene, list[Question]]:
    """Draws clip number `clip` of a split and up to `per_clip` different questions about it.

    Args:
        split: one of SPLITS.
        seed: of the data set.
        clip: its number.
        glyphs: the scans of the split.
        per_clip: how many questions; a scene that has fewer gives all it has.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), clip])
    kinds = list(_SCENES)
    shares = np.array([_SCENES[k].share for k in kinds])
    kind = kinds[rng.choice(len(kinds), p=shares / shares.sum())]
    scene = Scene(kind, _SCENES[kind].build(rng, glyphs), int(rng.integers(108, 148)))
    questions = _SCENES[kind].questions
    order = rng.permutation(len(questions))[:per_clip]
    return scene, [questions[i](scene, rng) for i in order]


# Scenes.


def _crop(scan: np.ndarray) -> np.ndarray:
    ink = scan >= 4
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    cropped = scan[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.minimum(cropped * 16, 255).astype(np.uint8)


def _enlarge(scan: np.ndarray, height: int) -> np.ndarray:
    width = min(height, max(3, round(scan.shape[1] * height / scan.shape[0])))
    return np.asarray(Image.fromarray(scan).resize((width, height), Image.Resampling.BILINEAR))


def _draw(rng: np.random.Generator, glyphs: Glyphs, digit: int, height: int) -> np.ndarray:
    scans = glyphs[digit]
    return _enlarge(scans[int(rng.integers(len(scans)))], height)


def _place(rng: np.random.Generator, free: int) -> int:
    return int(rng.integers(0, free + 1))


def _mover(rng: np.random.Generator, glyphs: Glyphs) -> tuple[Actor, ...]:
    speed = int(rng.choice(SPEEDS))
    travel = speed * (FRAMES - 1) // FPS
    height = int(rng.choice([h for h in HEIGHTS if h + travel <= SIDE]))
    digit = int(rng.integers(10))
    glyph = _draw(rng, glyphs, digit, height)
    dx, dy = DIRECTIONS[str(rng.choice(list(DIRECTIONS)))]
    x = _place(rng, SIDE - glyph.shape[1] - travel * abs(dx)) + travel * (dx < 0)
    y = _place(rng, SIDE - glyph.shape[0] - travel * abs(dy)) + travel * (dy < 0)
    return (Actor(digit, glyph, x, y, speed * dx, speed * dy),)


def _still(rng: np.random.Generator, glyphs: Glyphs) -> tuple[Actor, ...]:
    digit, height = int(rng.integers(10)), int(rng.choice(HEIGHTS))
    glyph = _draw(rng, glyphs, digit, height)
    right, low = CORNERS[str(rng.choice(list(CORNERS)))]
    half = SIDE // 2
    x = right * half + _place(rng, half - glyph.shape[1])
    y = low * half + _place(rng, half - glyph.shape[0])
    return (Actor(digit, glyph, x, y),)


def _flash(rng: np.random.Generator, glyphs: Glyphs) -> tuple[Actor, ...]:
    """Returns a digit that is visible for one or two whole seconds."""
    start, end = [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)][rng.integers(5)]
    return (dataclasses.replace(_still(rng, glyphs)[0], start=start, end=end),)


def _blink(rng: np.random.Generator, glyphs: Glyphs) -> tuple[Actor, ...]:
    """Returns a digit visible for a second with one whole second inside, so that it has one box."""
    start = float(rng.choice([0.5, 1.5, 2.5]))
    return (dataclasses.replace(_still(rng, glyphs)[0], start=start, end=start + 1),)


def _several(rng: np.random.Generator, glyphs: Glyphs) -> tuple[Actor, ...]:
    count = int(rng.integers(1, 5))
    cells = rng.choice(9, size=count, replace=False)
    corners = [(int(c) % 3 * CELL, int(c) // 3 * CELL) for c in cells]
    return tuple(_in_cell(rng, glyphs, int(rng.integers(10)), c, CELL, 14) for c in corners)


def _pair(rng: np.random.Generator, glyphs: Glyphs) -> tuple[Actor, ...]:
    """Returns two digits from 0 to 5 side by side, each in its half of the frame."""
    half = SIDE // 2
    low = _place(rng, SIDE - half)
    digits = rng.integers(0, 6, size=2)
    return tuple(
        _in_cell(rng, glyphs, int(d), (i * half, low), half, 20) for i, d in enumerate(digits)
    )


def _in_cell(
    rng: np.random.Generator,
    glyphs: Glyphs,
    digit: int,
    corner: tuple[int, int],
    side: int,
    height: int,
) -> Actor:
    """Returns a digit of `height` somewhere in the square of `side` pixels at `corner`."""
    glyph = _draw(rng, glyphs, digit, height)
    x = corner[0] + _place(rng, side - glyph.shape[1])
    y = corner[1] + _place(rng, side - glyph.shape[0])
    return Actor(digit, glyph, x, y)


# Questions. Each takes (scene, rng); the rng serves those that must invent something to ask about.


def _choice(problem: str, names: Sequence[str], answer: str) -> Question:
    options = tuple(f"{'ABCD'[i]}. {name}" for i, name in enumerate(names))
    return Question(problem, "ABCD"[list(names).index(answer)], "multiple choice", options)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _yes(value: bool) -> str:
    return "Yes" if value else "No"


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value


def _direction_of(actor: Actor) -> str:
    sign = (int(np.sign(actor.vx)), int(np.sign(actor.vy)))
    return next((name for name, direction in DIRECTIONS.items() if direction == sign), "")


def _direction(scene: Scene, rng: np.random.Generator) -> Question:
    return _choice(
        "Which way does the digit move?", list(DIRECTIONS), _direction_of(scene.actors[0])
    )


def _corner(scene: Scene, rng: np.random.Generator) -> Question:
    x0, y0, x1, y1 = scene.actors[0].box(0.0)
    corner = (int(x0 + x1 > SIDE), int(y0 + y1 > SIDE))
    name = next(name for name, where in CORNERS.items() if where == corner)
    return _choice("Where is the digit?", list(CORNERS), name)


def _speed(scene: Scene, rng: np.random.Generator) -> Question:
    actor = scene.actors[0]
    problem = "How fast does the digit move, in pixels per second?"
    return Question(problem, str(abs(actor.vx) + abs(actor.vy)), "regression")


def _size(scene: Scene, rng: np.random.Generator) -> Question:
    height = scene.actors[0].glyph.shape[0]
    return Question("How tall is the digit, in pixels?", str(height), "regression")


def _moves(scene: Scene, rng: np.random.Generator) -> Question:
    return Question("Does the digit move?", _yes(scene.kind == "mover"), "boolean")


def _begins(scene: Scene, rng: np.random.Generator) -> Question:
    problem = "Is the digit visible when the clip begins?"
    return Question(problem, _yes(scene.actors[0].visible(0.0)), "boolean")


def _count(scene: Scene, rng: np.random.Generator) -> Question:
    return Question("How many digits are there?", str(len(scene.actors)), "numerical")


def _more(scene: Scene, rng: np.random.Generator) -> Question:
    return Question("Are there more than two digits?", _yes(len(scene.actors) > 2), "boolean")


def _has(scene: Scene, rng: np.random.Generator) -> Question:
    digits = {a.digit for a in scene.actors}
    pool = sorted(digits) if rng.random() < 0.5 else [d for d in range(6) if d not in digits]
    digit = int(rng.choice(pool))
    return Question(f"Is there a {digit}?", _yes(digit in digits), "boolean")


def _read(scene: Scene, rng: np.random.Generator) -> Question:
    return Question(
        "Read the digits from left to right.", " ".join(str(a.digit) for a in scene.actors), "ocr"
    )


def _sum(scene: Scene, rng: np.random.Generator) -> Question:
    return Question(
        "What is the sum of the digits?", str(sum(a.digit for a in scene.actors)), "math"
    )


def _span(actor: Actor) -> list[float | int]:
    return [_number(actor.start), _number(actor.end)]


def _when(scene: Scene, rng: np.random.Generator) -> Question:
    actor = scene.actors[0]
    answer = _json({"time": _span(actor)})
    return Question(f"When is the {actor.digit} visible?", answer, "temporal grounding")


def _when_where(scene: Scene, rng: np.random.Generator) -> Question:
    actor = scene.actors[0]
    boxes = {str(s): actor.box(s) for s in range(4) if actor.visible(s)}
    answer = _json({"time": _span(actor), "boxes": boxes})
    return Question(f"When and where is the {actor.digit}?", answer, "spatial-temporal grounding")


def _where(scene: Scene, rng: np.random.Generator) -> Question:
    actor = scene.actors[0]
    return Question(
        f"Where is the {actor.digit}?", _json({"boxes": actor.box(0.0)}), "spatial grounding"
    )


def _track(scene: Scene, rng: np.random.Generator) -> Question:
    actor = scene.actors[0]
    first = int(rng.integers(3))
    answer = _json({"boxes": {str(s): actor.box(s) for s in (first, first + 1)}})
    return Question(f"Track the {actor.digit} from {first} s to {first + 1} s.", answer, "tracking")


def _describe(scene: Scene, rng: np.random.Generator) -> Question:
    actor = scene.actors[0]
    height = actor.glyph.shape[0]
    way = f"moves {_direction_of(actor)}" if scene.kind == "mover" else "stays in its place"
    answer = f"A {SIZE_WORDS[height]} {actor.digit} {way}."
    return Question("Describe the clip in a sentence.", answer, "open-ended")


@dataclasses.dataclass(frozen=True)
class _Kind:
    build: Callable[[np.random.Generator, Glyphs], tuple[Actor, ...]]
    questions: tuple[Callable[[Scene, np.random.Generator], Question], ...]
    share: float  # of the clips


_SCENES: dict[str, _Kind] = {
    "mover": _Kind(_mover, (_direction, _speed, _size, _moves, _track, _describe), 0.32),
    "still": _Kind(_still, (_corner, _size, _moves, _describe, _where), 0.2),
    "flash": _Kind(_flash, (_when, _begins), 0.12),
    "blink": _Kind(_blink, (_when_where,), 0.06),
    "several": _Kind(_several, (_count, _more), 0.16),
    "pair": _Kind(_pair, (_read, _sum, _has), 0.16),
    "picture": _Kind(_still, (_where, _size, _corner), 0.1),
}
