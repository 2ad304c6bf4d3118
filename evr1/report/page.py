"""report.html: what a run did, in one static file that asks the network for nothing.

Reads config.json, metrics.jsonl and rollouts.jsonl of a workdir, whether the run has ended or not.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from evr1.report import html, numbers
from evr1.report.files import read_metrics
from evr1.report.frames import Frames, Pictures, embed_frames, read_kept, to_json, within
from evr1.report.rollouts import add_places, read_groups, show_group

MAX_BYTES = 10_000_000  # of a page
DECODE_S = 10.0  # for frames of a page that is written while the run goes
_PAUSE = 19.0  # of what the last page took, before the next


def build(workdir: str | Path, frames: Frames | None = None, *, max_bytes: int = MAX_BYTES) -> Path:
    """Writes workdir/report.html and returns its path.

    Pictures of an earlier page are taken over: they are not asked for again, and a page that is
    built without `frames` has them too.

    Args:
        workdir: of a run; metrics.jsonl must be there, everything else is optional.
        frames: what the model saw of (split, problem_id); None: only what is kept.
        max_bytes: the page stays about under this: rollouts are thinned out evenly over the run,
            frames made smaller and, last, left out.

    Raises:
        ValueError: no metrics.jsonl, or an unreadable line.
    """
    workdir = Path(workdir)
    out = workdir / "report.html"
    page = render(workdir, frames, read_kept(out), max_bytes)
    from evr1.telemetry.workdir import replace_file  # jax, which readers of pages need not wait for

    replace_file(out, [page.encode("utf-8", errors="replace")])
    return out


def render(
    workdir: Path,
    frames: Frames | None,
    kept: Mapping[str, Pictures],
    max_bytes: int = MAX_BYTES,
    live: str = "",
) -> str:
    """Returns the page; see `build`. With `live`, the state of the run, it follows its server."""
    config = json.loads(_text(workdir / "config.json", "{}"))
    metrics = read_metrics(workdir / "metrics.jsonl")
    groups, total = read_groups(workdir / "rollouts.jsonl", max_bytes // 2)
    prompts: list[str] = []
    rollouts = [show_group(records, prompts) for records in groups]
    rows = list(dict.fromkeys((group["split"], group["id"]) for group in rollouts))
    pictures = embed_frames(frames, rows, max_bytes // 2, kept)
    asked = config.get("rewards", {}).get("box_scale", "pixels")
    for group, records in zip(rollouts, groups, strict=True):
        add_places(group, records, asked, pictures)
    note = _groups_note(len(rollouts), total)
    if len(pictures) < len(rows) and (pictures or frames is not None):
        note += f" {len(pictures):,} of {len(rows):,} prompts have frames here."
    data = {
        "steps": metrics.steps,
        "metrics": metrics.values,
        "charts": numbers.charts(metrics),
        "prompts": prompts,
        "groups": rollouts,
        "frames": to_json(pictures),
        "live": live,
    }
    return html.render(
        "report/report.html.jinja",
        ["report/report.css"],
        ["report/page.js", "report/places.js", "report/report.js"]
        + ["report/live.js"] * bool(live),
        is_served=bool(live),
        name=workdir.resolve().name,
        facts=numbers.facts(config, metrics),
        tiles=numbers.tiles(metrics),
        **numbers.by_type(metrics),
        kept=note,
        settings=numbers.settings(config),
        config=json.dumps(config, indent=2, ensure_ascii=False),
        data=html.embed_json(data),
    )


class Refreshed:
    """The page of a run while it goes.

    Args:
        workdir: of the run.
        frames: see `build`.
        clock: seconds, monotonic.
    """

    def __init__(
        self, workdir: Path, frames: Frames, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._workdir, self._frames, self._clock = workdir, frames, clock
        self._next = -math.inf

    def refresh(self, say: Callable[[str], None]) -> None:
        """Builds the page again, unless that would take over a twentieth of the time.

        New frames are decoded for `DECODE_S` seconds at most; the next time goes on with the rest.

        Args:
            say: takes a line about why there is no page; the run goes on without.
        """
        start = self._clock()
        if start < self._next:
            return
        try:
            build(self._workdir, within(self._frames, DECODE_S))
        except (OSError, ValueError) as error:
            say(f"report: {error}")
        end = self._clock()
        self._next = end + _PAUSE * (end - start)


def _groups_note(shown: int, total: int) -> str:
    """A sentence about how many groups of completions the page shows."""
    if not total:
        return "This run recorded no rollouts."
    if shown == total:
        return f"All {total:,} groups of completions."
    return (
        f"{shown:,} of {total:,} groups of completions, spread evenly over the run; rollouts.jsonl "
        "holds the rest."
    )


def _text(path: Path, default: str) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else default
