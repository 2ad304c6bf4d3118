"""report.html: what a run did, in one static file that asks the network for nothing.

Reads config.json, metrics.jsonl and rollouts.jsonl of a workdir, whether the run has ended or not.
"""

import json
from pathlib import Path

from evr1.report import html, numbers
from evr1.report.files import read_metrics
from evr1.report.frames import Frames, embed_frames
from evr1.report.rollouts import read_groups, show_group


def build(
    workdir: str | Path, frames: Frames | None = None, *, max_bytes: int = 10_000_000
) -> Path:
    """Writes workdir/report.html and returns its path.

    Args:
        workdir: of a run; metrics.jsonl must be there, everything else is optional.
        frames: what the model saw of (split, problem_id), each uint8[H, W, 3]; empty: nothing.
        max_bytes: the page stays about under this: rollouts are thinned out evenly over the run,
            frames made smaller and, last, left out.

    Raises:
        ValueError: no metrics.jsonl, or an unreadable line.
    """
    workdir = Path(workdir)
    config = json.loads(_text(workdir / "config.json", "{}"))
    metrics = read_metrics(workdir / "metrics.jsonl")
    groups, total = read_groups(workdir / "rollouts.jsonl", max_bytes // 2)
    prompts: list[str] = []
    rollouts = [show_group(records, prompts) for records in groups]
    rows = list(dict.fromkeys((group["split"], group["id"]) for group in rollouts))
    pictures = embed_frames(frames, rows, max_bytes // 2) if frames is not None else {}
    note = _groups_note(len(rollouts), total)
    if frames is not None and len(pictures) < len(rows):
        note += f" {len(pictures):,} of {len(rows):,} prompts have frames here."
    data = {
        "steps": metrics.steps,
        "metrics": metrics.values,
        "charts": numbers.charts(metrics),
        "prompts": prompts,
        "groups": rollouts,
        "frames": pictures,
    }
    page = html.render(
        "report/report.html.jinja",
        ["report/report.css"],
        ["report/page.js", "report/report.js"],
        name=workdir.resolve().name,
        facts=numbers.facts(config, metrics),
        tiles=numbers.tiles(metrics),
        **numbers.by_type(metrics),
        kept=note,
        settings=numbers.settings(config),
        config=json.dumps(config, indent=2, ensure_ascii=False),
        data=html.embed_json(data),
    )
    temporary = workdir / "report.html.tmp"
    temporary.write_text(page, encoding="utf-8", errors="replace")
    temporary.replace(workdir / "report.html")
    return workdir / "report.html"


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
