"""How alike intervals, boxes and boxes over time are: intersections over unions, all symmetric."""

import math
from collections.abc import Iterable, Mapping, Sequence

Interval = tuple[float, float]  # seconds
Box = tuple[float, float, float, float]  # left, top, right, bottom; any unit


def interval_iou(a: Interval, b: Interval) -> float:
    """Returns the intersection over union of intervals; one that ends before it starts is empty.

    >>> interval_iou((12, 18), (10, 20))
    0.6
    """
    return spans_iou((a,), (b,))


def spans_iou(a: Iterable[Interval], b: Iterable[Interval]) -> float:
    """Returns the intersection over union of the seconds that any interval of each side covers.

    Order, duplicates, overlaps and splits of one interval into adjoining ones do not matter.

    >>> spans_iou([(0, 10), (20, 30)], [(5, 25)])
    0.3333333333333333
    """
    left, right = merge(a), merge(b)
    if left == right:
        return float(bool(left))
    if not left or not right:
        return 0.0
    common, i, j = 0.0, 0, 0
    while i < len(left) and j < len(right):
        common += max(0.0, min(left[i][1], right[j][1]) - max(left[i][0], right[j][0]))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    if len(left) == len(right) == 1:
        union = max(left[0][1], right[0][1]) - min(left[0][0], right[0][0])
        return common / union if common and math.isfinite(union) else 0.0
    union = math.fsum(end - start for start, end in merge([*left, *right]))
    return min(1.0, common / union) if union > 0 and math.isfinite(union) else 0.0


def merge(spans: Iterable[Interval]) -> list[Interval]:
    """Returns what intervals cover, in order, without overlaps; reversed ones cover nothing.

    >>> merge([(5, 7), (0, 2), (1, 3), (9, 8)])
    [(0, 3), (5, 7)]
    """
    spans = [span for span in spans if span[0] <= span[1]]
    if len(spans) < 2:
        return spans
    merged: list[Interval] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def box_iou(a: Box, b: Box) -> float:
    """Returns the intersection over union of boxes; one with its corners reversed is empty.

    >>> round(box_iou((5, 5, 15, 15), (0, 0, 10, 10)), 4)
    0.1429
    """
    if a[0] > a[2] or a[1] > a[3] or b[0] > b[2] or b[1] > b[3]:
        return 0.0
    if a == b:
        return 1.0
    common = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    common *= max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = _area(a) + _area(b) - common
    return common / union if union > 0 and math.isfinite(union) else 0.0


def boxes_iou(a: Iterable[Box], b: Iterable[Box]) -> float:
    """Returns the best sum of IoUs of boxes matched one to one, over the larger number of boxes.

    Equal boxes of one side count once. A box without a partner counts 0, so that neither guesses,
    nor parts of a box, nor one box round everything pay.

    >>> boxes_iou([(0, 0, 10, 10)], [(20, 20, 30, 30), (0, 0, 10, 10)])
    0.5
    """
    left, right = list(dict.fromkeys(a)), list(dict.fromkeys(b))
    if not left or not right:
        return 0.0
    if len(left) == len(right) == 1:
        return box_iou(left[0], right[0])
    if len(left) > len(right):
        left, right = right, left
    gains = [[box_iou(p, q) for q in right] for p in left]
    pairs = enumerate(best_matching(gains))
    return min(1.0, math.fsum(gains[i][j] for i, j in pairs) / len(right))


def best_matching(gains: Sequence[Sequence[float]]) -> list[int]:
    """Returns for each row the column of the one-to-one matching with the largest sum of gains.

    The Hungarian method with potentials: rows enter one by one, each along the cheapest path of
    exchanges that ends in a free column.

    >>> best_matching([[0.9, 0.8], [0.8, 0.1]])
    [1, 0]

    Args:
        gains: at least as many columns as rows.
    """
    columns = len(gains[0])
    row_potential, potential = [0.0] * len(gains), [0.0] * columns
    row_of = [-1] * columns
    for first in range(len(gains)):
        cost, before = [math.inf] * columns, [-1] * columns
        is_done = [False] * columns
        row, column = first, -1
        while row >= 0:
            for j in range(columns):
                slack = -gains[row][j] - row_potential[row] - potential[j]
                if not is_done[j] and slack < cost[j]:
                    cost[j], before[j] = slack, column
            column = min((j for j in range(columns) if not is_done[j]), key=cost.__getitem__)
            step = cost[column]
            row_potential[first] += step
            for j in range(columns):
                if is_done[j]:
                    row_potential[row_of[j]] += step
                    potential[j] -= step
                else:
                    cost[j] -= step
            is_done[column] = True
            row = row_of[column]
        while column >= 0:
            previous = before[column]
            row_of[column] = row_of[previous] if previous >= 0 else first
            column = previous
    return [row_of.index(i) for i in range(len(gains))]


def tube_iou(a: Mapping[float, Box | None], b: Mapping[float, Box | None]) -> float:
    """Returns the mean box IoU over every second that either names; a second of one counts 0.

    >>> tube_iou({1: (0, 0, 10, 10)}, {1: (0, 0, 10, 10), 2: (0, 0, 10, 10)})
    0.5
    """
    seconds = a.keys() | b.keys()
    pairs = [(a.get(s), b.get(s)) for s in seconds]
    return sum(box_iou(p, q) for p, q in pairs if p and q) / len(seconds) if seconds else 0.0


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
