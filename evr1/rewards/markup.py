"""SVG and HTML code: how alike two documents are, element by element."""

import bisect
import functools
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rapidfuzz.distance import Levenshtein

from evr1.rewards import parse
from evr1.rewards.base import Task, Verdict
from evr1.rewards.pages.attributes import Value
from evr1.rewards.pages.elements import TEXT, Element, read_html, read_svg

Reader = Callable[[str], list[Element] | None]
Sizes = tuple[float, float] | None  # of two drawings; None where lengths are compared as they are

MAX_PAIRS = 1_000  # of elements that are compared each with each
SAME = 1e-3  # of a drawing's size: a shift that nobody sees
_TAG_WEIGHT, _ITEM_WEIGHT = 1, 10  # of an element's tag, and of each of its attributes
_LENGTHS = frozenset(
    ("x", "y", "width", "height", "cx", "cy", "r", "rx", "ry", "x1", "y1", "x2", "y2", "dx", "dy")
    + ("fx", "fy", "points", "d", "stroke-width", "font-size", "transform")
)
_UNSHOWN = frozenset(("title", "style", "script", "desc", "metadata"))
_WRITTEN = frozenset(("text", "tspan", "textPath", "foreignObject"))
_CONTAINERS = _UNSHOWN | {"svg", "g", "defs", "symbol", "html", "head", "body", "meta", "link"}
_FENCE = re.compile(r"```[a-zA-Z]{0,12}[ \t]*\n(.*?)```", re.DOTALL)


def score_svg(response: str, task: Task) -> Verdict | None:
    """Returns how alike the drawing is to the truth's; 1 for an equivalent document.

    Raises:
        ValueError: the ground truth is no well-formed SVG.
    """
    return _score(response, read_truth(task.answer, read_svg, "SVG"), read_svg, "svg")


def score_html(response: str, task: Task) -> Verdict | None:
    """Returns how alike the page is to the truth's; 1 for an equivalent document.

    Raises:
        ValueError: the ground truth holds no HTML elements.
    """
    return _score(response, read_truth(task.answer, read_html, "HTML"), read_html, "html")


def read_truth(answer: object, read: Reader, name: str) -> list[Element]:
    """Returns the elements of a ground truth.

    Raises:
        ValueError: it has none.
    """
    elements = _read_truth(truth_text(answer), read)
    if not elements:
        raise ValueError(f"the answer {str(answer)[:80]!r} is no {name}; correct the row")
    return elements


@functools.lru_cache(maxsize=8)  # a group's responses come one after the other
def _read_truth(text: str, read: Reader) -> list[Element] | None:
    return read(text)


def truth_text(answer: object) -> str:
    """Returns the document of a ground truth, without the tag or fence that may wrap it."""
    text = parse.ground_truth(answer)
    fenced = _FENCE.fullmatch(text.strip()) if isinstance(text, str) else None
    return fenced[1] if fenced else text if isinstance(text, str) else ""


def _score(response: str, truth: list[Element], read: Reader, root: str) -> Verdict | None:
    for text, is_raw in _documents(response, root):
        elements = read(text)
        if elements:
            accuracy = similarity(elements, truth)
            return Verdict(accuracy, is_raw and (shows(elements) or accuracy == 1), text)
    return None


def shows(elements: Sequence[Element]) -> bool:
    """Returns whether a document shows anything: a text, or an element that says more than a tag.

    Roots, groups and what stands in the head of a page show nothing by themselves.
    """
    is_drawing = elements[0].is_root

    def is_seen(element: Element) -> bool:
        if element.tag != TEXT:
            return bool(element.attributes) and element.tag not in _CONTAINERS
        around = set(element.path.split("/")[:-1])
        return not _UNSHOWN & around and (not is_drawing or bool(_WRITTEN & around))

    return any(map(is_seen, elements))


def _documents(response: str, root: str) -> Iterator[tuple[str, bool]]:
    """Yields where the document may stand, and whether that is the asked form."""
    tagged = parse.answer_tag(response)
    text = (parse.after_reasoning(response) or "") if tagged is None else tagged
    text = text.strip()
    if text.startswith("<") and text.endswith(">"):
        yield text, tagged is not None
    fenced = _FENCE.findall(text)
    if fenced:
        yield fenced[-1].strip(), False
    lower = text.lower()
    start, end = lower.find(f"<{root}"), lower.rfind(f"</{root}>")
    if 0 <= start < end:
        yield text[start : end + len(root) + 3], False


def similarity(a: Sequence[Element], b: Sequence[Element]) -> float:
    """Returns how alike two documents are, in [0, 1]: 1 where they are equivalent. Symmetric.

    The F1 of what they hold (tags, attributes, texts) over pairs of elements, times 3/4 plus a
    quarter of the share of pairs that stand in the same order. See docs/rewards.md.
    """
    is_drawing = bool(a and b) and a[0].is_root and b[0].is_root
    sizes = (_size(a[0]), _size(b[0])) if is_drawing else None
    pairs = _pairs(a, b, sizes)
    if not pairs:
        return 0.0
    common = math.fsum(share for _, _, share in pairs)
    total = sum(map(_weight, a)) + sum(map(_weight, b))
    order = _longest_increasing([j for _, j, _ in sorted(pairs)]) / len(pairs)
    return 2 * common / total * (0.75 + 0.25 * order)


def _pairs(
    a: Sequence[Element], b: Sequence[Element], sizes: Sizes
) -> list[tuple[int, int, float]]:
    """Returns (index, index, weight in common) of elements matched one to one.

    First those with the same path; then, at half the weight, those with the same tag elsewhere.
    """
    pairs: list[tuple[int, int, float]] = []
    left, right = set(range(len(a))), set(range(len(b)))
    for factor, key in ((1.0, lambda e: e.path), (0.5, lambda e: e.tag)):
        groups: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for side, elements, free in ((0, a, left), (1, b, right)):
            for i in sorted(free):
                groups[key(elements[i])][side].append(i)
        for of_a, of_b in groups.values():
            for i, j, common in _match(a, b, of_a, of_b, sizes):
                pairs.append((i, j, factor * common))
                left.discard(i)
                right.discard(j)
    return pairs


def _match(
    a: Sequence[Element],
    b: Sequence[Element],
    of_a: Sequence[int],
    of_b: Sequence[int],
    sizes: Sizes,
) -> list[tuple[int, int, float]]:
    """Returns (index, index, weight in common), the most alike first.

    In large groups these are equal ones, then the rest in order.
    """
    if len(of_a) * len(of_b) <= MAX_PAIRS:
        weights_a, weights_b = [_weight(a[i]) for i in of_a], [_weight(b[j]) for j in of_b]
        ranked = [
            (-_common(a[i], b[j], weights_a[m] + weights_b[n], sizes), abs(m - n), min(m, n), i, j)
            for m, i in enumerate(of_a)
            for n, j in enumerate(of_b)
        ]
        pairs, left, right = [], set(of_a), set(of_b)
        for common, *_, i, j in sorted(ranked):
            if i in left and j in right:
                pairs.append((i, j, -common))
                left.discard(i)
                right.discard(j)
        return pairs
    equal: dict[Any, list[int]] = defaultdict(list)
    for j in of_b:
        equal[_signature(b[j])].append(j)
    for queue in equal.values():
        queue.reverse()
    pairs = [(i, equal[s].pop()) for i in of_a if equal.get(s := _signature(a[i]))]
    matched = {i for i, _ in pairs}, {j for _, j in pairs}
    rest = (
        [i for i in side if i not in used] for side, used in zip((of_a, of_b), matched, strict=True)
    )
    pairs += zip(*rest, strict=False)
    weights = ((_weight(a[i]) + _weight(b[j])) for i, j in pairs)
    return [
        (i, j, _common(a[i], b[j], weight, sizes))
        for (i, j), weight in zip(pairs, weights, strict=True)
    ]


def _signature(element: Element) -> Any:
    return element.tag, tuple(sorted(element.attributes.items(), key=lambda item: item[0]))


def _weight(element: Element) -> float:
    """Returns an element's weight.

    A tag weighs little, so that a skeleton of tags earns little; long texts weigh more.
    """
    if element.tag == TEXT:
        return _ITEM_WEIGHT * math.ceil(math.sqrt(len(element.attributes[TEXT][0].split())))
    items = len(element.attributes)
    return _TAG_WEIGHT + items * (_TAG_WEIGHT if element.is_root else _ITEM_WEIGHT)


def _common(a: Element, b: Element, both: float, sizes: Sizes) -> float:
    """Returns the weight that two elements have in common; all of it if they are equal.

    Args:
        a: an element.
        b: one with the same tag.
        both: the sum of their weights.
        sizes: of the drawings that they stand in.
    """
    if a.tag == TEXT:
        alike = Levenshtein.normalized_similarity(a.attributes[TEXT][0], b.attributes[TEXT][0])
        return alike * both / 2
    weight = _TAG_WEIGHT if a.is_root or b.is_root else _ITEM_WEIGHT
    others = b.attributes
    alike = math.fsum(
        [_alike(k, v, others[k], sizes) for k, v in a.attributes.items() if k in others]
    )
    return _TAG_WEIGHT + weight * alike


def _alike(name: str, a: Value, b: Value, sizes: Sizes) -> float:
    """Returns how alike two values of an attribute are."""
    scales = sizes if name in _LENGTHS else None
    if a == b and (scales is None or scales[0] == scales[1]):
        return 1.0
    if name == "class":
        return len(set(a) & set(b)) / len(set(a) | set(b))
    if len(a) == len(b) == 1:
        return _alike_part(a[0], b[0], scales)
    parts = [_alike_part(x, y, scales) for x, y in zip(a, b, strict=False)]
    return math.fsum(parts) / max(len(a), len(b))


def _alike_part(a: Any, b: Any, scales: Sizes) -> float:
    if isinstance(a, float) and isinstance(b, float):
        return _alike_numbers(a, b, scales)
    if isinstance(a, tuple) and isinstance(b, tuple):  # colours; red is nothing like blue
        return max(0.0, 1 - 2 * math.dist(a, b) / math.dist((0, 0, 0), (255, 255, 255)))
    return float(a == b)


def _alike_numbers(a: float, b: float, scales: Sizes) -> float:
    """Returns how alike numbers are: by their distance in a drawing, else by their ratio.

    In a drawing, numbers a quarter of its size apart are not alike at all.
    """
    if scales is None:
        return 1.0 if a == b else max(0.0, 1 - abs(a - b) / max(abs(a), abs(b)))
    distance = abs(a / scales[0] - b / scales[1])
    return 1.0 if distance <= SAME else max(0.0, 1 - 4 * distance)


def _size(element: Element) -> float:
    """Returns the longer side of a drawing, by its view box, or else its width and height."""
    root: Mapping[str, Value] = element.attributes
    numbers = [n for n in root.get("viewBox", ())[2:] if isinstance(n, float)]
    if not numbers:
        sides = (root.get("width", ()), root.get("height", ()))
        numbers = [side[0] for side in sides if side and isinstance(side[0], float)]
    return max([n for n in numbers if n > 0], default=100.0)


def _longest_increasing(values: Sequence[int]) -> int:
    """Returns the length of the longest run of increasing values, gaps allowed."""
    ends: list[int] = []
    for value in values:
        at = bisect.bisect_left(ends, value)
        ends[at : at + 1] = [value]
    return len(ends)
