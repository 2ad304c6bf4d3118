"""From accuracies to pass rates: which rows are kept, and what is said of all of them.

Not a command of its own; pure functions.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich import table as rich_table

from evr1.data.records import Row

PLACES = ("kept", "too_easy", "too_hard", "failed")
_BARS = " ▁▂▃▄▅▆▇█"
Measured = list[float] | str  # the accuracies of a row's k completions, or why there are none


class Rule(NamedTuple):
    """Which rows are kept.

    Attributes:
        low: kept above this pass rate; at or below it a row is too hard.
        high: kept below this pass rate; at or above it a row is too easy.
        pass_at: a completion passes at this accuracy or more.
    """

    low: float
    high: float
    pass_at: float

    def rate(self, accuracies: Sequence[float]) -> float:
        """Returns the share of completions that pass.

        >>> Rule(0, 1, 0.5).rate([1.0, 0.5, 0.4, 0.0])
        0.5
        """
        return sum(a >= self.pass_at for a in accuracies) / len(accuracies)

    def place(self, measured: Measured) -> str:
        """Returns where a row belongs: one of `PLACES`."""
        if isinstance(measured, str):
            return "failed"
        rate = self.rate(measured)
        return "too_hard" if rate <= self.low else "too_easy" if rate >= self.high else "kept"

    def added(self, measured: Measured) -> dict[str, Any]:
        """Returns the fields that a row gets."""
        if isinstance(measured, str):
            return {"pass_rate": None, "mean_accuracy": None, "filter_failure": measured}
        return {"pass_rate": self.rate(measured), "mean_accuracy": sum(measured) / len(measured)}


def summarize(rows: Sequence[Row], measured: Sequence[Measured], rule: Rule, k: int) -> dict:
    """Counts, means and histograms, over all rows and by problem type.

    Args:
        rows: of the data file.
        measured: of each row.
        rule: that places them.
        k: completions of a row; histogram[j] counts the rows of which j completions pass.
    """
    by_type = collections.defaultdict(list)
    for row, one in zip(rows, measured, strict=True):
        by_type[row.problem_type].append(one)
    return {
        "k": k,
        "min": rule.low,
        "max": rule.high,
        "pass_at": rule.pass_at,
        **_counts(measured, rule, k),
        "by_problem_type": {name: _counts(by_type[name], rule, k) for name in sorted(by_type)},
    }


def _counts(measured: Sequence[Measured], rule: Rule, k: int) -> dict[str, Any]:
    places = collections.Counter(map(rule.place, measured))
    rates = [rule.rate(m) for m in measured if not isinstance(m, str)]
    passed = collections.Counter(round(rate * k) for rate in rates)
    return {
        "rows": len(measured),
        **{place: places[place] for place in PLACES},
        "mean_pass_rate": sum(rates) / len(rates) if rates else None,
        "histogram": [passed[j] for j in range(k + 1)],
    }


def table(summary: Mapping[str, Any]) -> rich_table.Table:
    """Returns a line per problem type and one for all."""
    out = rich_table.Table(box=None, pad_edge=False)
    out.add_column("problem type", no_wrap=True)
    for name in ("rows", "kept", "easy", "hard", "failed", "rate"):
        out.add_column(name, justify="right", no_wrap=True)
    out.add_column("0 to 1", no_wrap=True)
    for name, part in [*summary["by_problem_type"].items(), ("all", summary)]:
        mean = part["mean_pass_rate"]
        counts = [str(part[key]) for key in ("rows", *PLACES)]
        out.add_row(name, *counts, "" if mean is None else f"{mean:.3f}", bars(part["histogram"]))
    return out


def bars(counts: Sequence[int]) -> str:
    """Returns a histogram as a word; what is not 0 has a bar.

    >>> bars([8, 0, 1, 4])
    '█ ▁▄'
    """
    top = max(counts, default=0)
    return "".join(_BARS[-(-8 * n // top)] if top else " " for n in counts)
