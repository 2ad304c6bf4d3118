"""The page of an evaluation run: report.html, one static file that asks the network for nothing.

It holds the tables of `score`, every sub-score, the samples with what each profile made of them
and, where the files of a benchmark are at hand, a few of the frames that the model saw.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evr1.evals import compare, rescore, samples, view_frames, view_samples, view_tables
from evr1.evals.results import TaskResults
from evr1.evals.samples import Answer, Run
from evr1.evals.view_frames import Clip
from evr1.report import html
from evr1.rewards import files

FRAMES = 4  # of a medium, unless another number is asked for


def add_command(commands: Any) -> None:
    """Adds `view` to the commands."""
    command = commands.add_parser("view", help="write the page of a run")
    add = command.add_argument
    add("run_dir", metavar="RUN", help="folder with samples_*.jsonl")
    add(
        "--data",
        metavar="TASK=FOLDER",
        action="append",
        default=[],
        help="where the media of a task lie (default: where the run found them)",
    )
    add(
        "--frames",
        type=int,
        default=FRAMES,
        metavar="N",
        help=f"pictures of each medium, 0 to {view_frames.MOST_FRAMES} (default {FRAMES}; 0: none)",
    )
    add("--out", metavar="FILE", help="page to write (default: report.html in RUN)")
    add("--compare", metavar="OTHER_RUN", help="show what flipped since this run")
    command.set_defaults(run=run)


def run(flags: argparse.Namespace) -> None:
    """Writes the page of a run.

    Raises:
        ValueError: a flag has no meaning, or a run cannot be read.
    """
    folder = Path(flags.run_dir)
    out = Path(flags.out) if flags.out else folder / "report.html"
    data = [_folder(each) for each in flags.data]
    build(folder, out, dict(data), flags.frames, Path(flags.compare) if flags.compare else None)
    print(f"{out} is written, {out.stat().st_size / 1e6:.1f} MB")


def _folder(flag: str) -> tuple[str, Path]:
    task, is_set, folder = flag.partition("=")
    if not is_set or not task or not folder:
        raise ValueError(f"--data {flag}: give TASK=FOLDER")
    if not Path(folder).is_dir():
        raise ValueError(f"--data {flag}: {folder} is no folder; give the one of {task}'s files")
    return task, Path(folder)


def build(
    folder: Path,
    out: Path,
    data: Mapping[str, Path],
    frames: int = FRAMES,
    other: Path | None = None,
) -> None:
    """Writes the page of a run.

    Args:
        folder: of the run.
        out: file to write.
        data: where the media of tasks lie, by name; of others the manifest tells it, if anything.
        frames: pictures of each medium; 0: none.
        other: folder of a run to compare with; None: none.

    Raises:
        ValueError: a run cannot be read or scored, shares no task with the other, lacks a task of
            `data`, or the number of frames is out of range.
    """
    if not 0 <= frames <= view_frames.MOST_FRAMES:
        raise ValueError(f"--frames {frames}: give 0 to {view_frames.MOST_FRAMES}")
    read = samples.read_run(folder)
    for name in data:
        if name not in read.tasks:
            raise ValueError(
                f"--data {name}: {folder} has no such task; there is {', '.join(read.tasks)}"
            )
    scored = rescore.score_run(read)
    compared = _compare(read, scored, other) if other else _Compared({}, [], [])
    kept = view_samples.keep(scored, compared.others)
    notes = [*rescore.notes(read), *(n for each in scored for n in rescore.problems(each))]
    pictures: list[Any] = []
    if frames:
        folders = _folders(read, data)
        pictures, told = _picture(kept, [folders.get(each.task.name) for each in scored], frames)
        notes += [*_unknown(folders, read, scored), *told]
    page = html.render(
        "evals/view.html.jinja",
        ["report/report.css", "evals/view.css"],
        ["report/page.js", "evals/filter.js", "evals/view.js"],
        name=folder.resolve().name,
        facts=view_tables.facts(read.manifest, scored),
        tasks=[view_tables.task(each) for each in scored],
        breakdowns=[view_tables.breakdown(each) for each in scored],
        other=other.resolve().name if other else "",
        differences=compared.rows,
        notes=[*notes, *compared.notes],
        kept=_kept(kept),
        manifest=json.dumps(read.manifest, indent=2, ensure_ascii=False) if read.manifest else "",
        data=html.embed_json(
            {
                "tasks": [
                    {"name": each.task.name, "profiles": [r.scored.profile for r in each.results]}
                    | each.settings._asdict()
                    for each in scored
                ],
                "samples": kept.rows,
                "shown": kept.shown,
                "pictures": pictures,
                "compared": other is not None,
            }
        ),
    )
    with files.writing(str(out)) as file:
        file.write(page)


def _kept(kept: view_samples.Kept) -> str:
    """Returns a sentence about which samples the page shows."""
    n = len(kept.rows)
    if n == kept.total:
        told = f"All {n:,} samples."
    else:
        told = f"{n:,} of {kept.total:,} samples, spread evenly; the run's files hold the rest."
    if kept.limit < view_samples.LIMITS[0]:
        told += f" Texts are cut at {kept.limit:,} characters."
    return told


# The other run.


class _Compared(NamedTuple):
    others: Mapping[str, TaskResults]  # of the tasks that both runs have
    rows: Sequence[Mapping[str, Any]]
    notes: Sequence[str]


def _compare(run: Run, scored: Sequence[TaskResults], folder: Path) -> _Compared:
    """Returns the same tasks of another run, and how far ours is from it."""
    ours = {each.task.name: each for each in scored}
    read = samples.read_run(folder)
    shared = {name: merged for name, merged in read.tasks.items() if name in ours}
    if not shared:
        raise ValueError(f"{folder} shares no task with this run; compare runs of the same tasks")
    manifest = {**read.manifest, "tasks": run.manifest.get("tasks")}  # both by the same rules
    theirs = rescore.score_run(read._replace(tasks=shared, manifest=manifest))
    rows, notes = [], []
    for each in theirs:
        name = each.task.name
        mine = ours[name]
        differing = compare.differences(each.answers, mine.answers)
        if differing:
            told = "; ".join(differing)
            notes.append(f"{name}: flips, but no difference: the runs differ in {told}")
            continue
        n_expected = max(each.results[0].n_expected, mine.results[0].n_expected)
        before = {result.scored.profile: result.scored for result in each.results}
        for after in (result.scored for result in mine.results):
            if after.profile in before and rescore.is_first(mine.task, after.profile):
                try:
                    found = compare.compare_scored(before[after.profile], after, n_expected)
                except ValueError as error:  # no sample that both have scored
                    notes.append(f"{error} ({after.profile})")
                else:
                    rows.append(view_tables.comparison(found))
    return _Compared({each.task.name: each for each in theirs}, rows, notes)


# Pictures.


def _folders(read: Run, data: Mapping[str, Path]) -> dict[str, Path]:
    """Returns where the media of tasks lie, as far as that is known."""
    folders = {}
    listed = read.manifest.get("tasks")
    for name, entry in listed.items() if isinstance(listed, dict) else ():
        folder = entry.get("data") if isinstance(entry, dict) else None
        if isinstance(folder, str) and folder and Path(folder).is_dir():
            folders[name] = Path(folder)
    return {**folders, **data}


def _unknown(folders: Mapping[str, Path], read: Run, scored: Sequence[TaskResults]) -> list[str]:
    """Returns a line on the tasks without pictures; [] where there are none."""
    names = [each.task.name for each in scored if each.task.name not in folders]
    if not names:
        return []
    return [f"No pictures of {', '.join(names)}: tell where the files lie, --data TASK=FOLDER"]


def _picture(
    kept: view_samples.Kept, folders: Sequence[Path | None], count: int
) -> tuple[list[Any], list[str]]:
    """Puts the places of pictures into the rows.

    Args:
        kept: samples.
        folders: of the tasks' files.
        count: pictures of each medium.

    Returns:
        The pictures of each clip, and notes.
    """
    asked = [_clips(folders[place], answer, count) for place, answer in kept.answers]
    distinct = list(dict.fromkeys(clip for clips in asked for clip in clips if clip))
    if distinct:
        n = min(len(distinct), view_frames.MOST_CLIPS)
        print(f"decoding {n:,} media for pictures; --frames 0 leaves them out", file=sys.stderr)
    found = view_frames.pictures(distinct) if distinct else {}
    places = {clip: place for place, clip in enumerate(found)}
    for row, clips in zip(kept.rows, asked, strict=True):
        row["pictures"] = [places.get(clip) if clip else None for clip in clips]
    if not distinct:
        return [], []
    limits = (
        f"at most {count} of a medium, {view_frames.MOST_CLIPS} media, "
        f"{view_frames.MAX_BYTES / 1e6:g} MB; {view_frames.SIDE} pixels"
    )
    return list(found.values()), [
        f"Pictures of {len(found):,} of {len(distinct):,} media that were shown ({limits})"
    ]


def _clips(folder: Path | None, answer: Answer, count: int) -> list[Clip | None]:
    return view_frames.clips(folder, answer, count) if folder else []
