"""Checks that a folder holds all of a benchmark: questions by tag, media, subtitles.

Nothing is downloaded. `take_stock` reads annotations and looks at the sizes of files; no medium is
decoded. Media that stand inside annotation files are written out on request.
"""

import argparse
import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evr1.evals.tasks import TASK_HELP, files, find
from evr1.evals.tasks.base import Part, Sample, Source, Subtitles, Task
from evr1.evals.unpack import unpack
from evr1.formats.words import counted

_SHOWN = 20  # missing files that are named in print; the manifest names all
_POINTER = b"version https://git-lfs"
_POINTER_MAX_BYTES = 1024
_ARCHIVES = ("*.zip", "*.tar", "*.tar.*", "*.tgz")
_BLOCK_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class Files:
    """The files of one kind that questions ask for.

    Attributes:
        sizes: path -> bytes of those that are there.
        missing: path -> (what is wrong, how many questions ask for it).
    """

    sizes: Mapping[str, int]
    missing: Mapping[str, tuple[str, int]]

    def line(self, kind: str) -> str:
        """Returns how many are there and how large they are."""
        total = len(self.sizes) + len(self.missing)
        return f"{kind}: {len(self.sizes)} of {total}, {_size(sum(self.sizes.values()))}"


@dataclasses.dataclass(frozen=True)
class Stock:
    """What a folder holds of a benchmark.

    Attributes:
        task: its name.
        n: questions.
        expected: questions of a complete copy.
        counts: tag -> label -> questions.
        wrong: what differs from a complete copy, a line each.
        annotations: path -> {"bytes", "sha256"} of the files that were read.
        media: videos and images.
        subtitles: see Files.
        unrunnable: questions that lack a medium, or subtitles that every prompt of the task shows.
        archives: files that may hold what is missing.
        packed: missing media that stand inside the annotation files.
    """

    task: str
    n: int
    expected: int
    counts: Mapping[str, Mapping[str, int]]
    wrong: Sequence[str]
    annotations: Mapping[str, Mapping[str, Any]]
    media: Files
    subtitles: Files
    unrunnable: int
    archives: Sequence[str]
    packed: int

    @property
    def is_complete(self) -> bool:
        """Whether every question is there with all that it asks for."""
        return not (self.wrong or self.media.missing or self.subtitles.missing)


def take_stock(task: Task, folder: Path) -> Stock:
    """Returns what a folder holds of a benchmark.

    Raises:
        ValueError: there is no such folder, or its annotations cannot be read.
    """
    with files.recording() as read:
        samples = _load(task, folder)
    media, subtitles = _shown(folder, samples)
    is_lacking = media.missing or subtitles.missing
    archives = [p for a in _ARCHIVES for p in folder.rglob(a)] if is_lacking else []
    packed = task.embedded(folder) if task.embedded and media.missing else ()
    needed = media.missing.keys()
    if samples and all(_has_subtitles(prompt(samples[0])) for prompt in task.prompts.values()):
        needed |= subtitles.missing.keys()
    return Stock(
        task=task.name,
        n=len(samples),
        expected=task.source.n,
        counts=_count(samples),
        wrong=_wrong(task, samples),
        annotations={
            str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
            for path in sorted(set(read))
        },
        media=media,
        subtitles=subtitles,
        unrunnable=sum(
            not needed.isdisjoint([sample.subtitles, *(m.path for m in sample.media)])
            for sample in samples
        ),
        archives=sorted({str(path.relative_to(folder)) for path in archives}),
        packed=len(media.missing.keys() & {name for name, _ in packed}),
    )


def is_complete(task: Task, folder: Path, samples: Sequence[Sample]) -> bool:
    """Returns what `take_stock` says of a folder whose samples these are, in less time."""
    return not (_wrong(task, samples) or any(each.missing for each in _shown(folder, samples)))


def load_samples(task: Task, folder: Path) -> list[Sample]:
    """Returns the samples of a folder in the order of their ids.

    Raises:
        ValueError: there is no such folder, its annotations cannot be read, or two samples have one
            id.
    """
    samples = sorted(_load(task, folder), key=lambda sample: sample.id)
    for fault in _repeated(samples):  # answers are found by them
        raise ValueError(f"{folder}: {task.name}: {fault}; each needs its own")
    return samples


def _load(task: Task, folder: Path) -> list[Sample]:
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; give the one that holds {task.source.hub[0]}")
    return list(task.load(folder))


def _shown(folder: Path, samples: Sequence[Sample]) -> tuple[Files, Files]:
    """Returns what is there of the media and the subtitles that samples ask for."""
    shown = [medium for sample in samples for medium in sample.media]
    media = _look(
        folder,
        (medium.path for medium in shown),
        {medium.path for medium in shown if medium.frames_per_s is not None},
    )
    return media, _look(folder, (sample.subtitles for sample in samples if sample.subtitles))


def _has_subtitles(parts: Sequence[Part]) -> bool:
    return any(isinstance(part, Subtitles) for part in parts)


def _count(samples: Sequence[Sample]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for sample in samples:
        for tag, value in sample.tags.items():
            labels = (value,) if isinstance(value, str) else value
            counts.setdefault(tag, Counter()).update(labels)
    return {tag: dict(sorted(counts[tag].items())) for tag in sorted(counts)}


def _repeated(samples: Sequence[Sample]) -> list[str]:
    ids = Counter(sample.id for sample in samples)
    twice = [name for name, count in ids.items() if count > 1]
    return [f"ids: {len(twice)} stand more than once, the first is {twice[0]}"] if twice else []


def _wrong(task: Task, samples: Sequence[Sample]) -> list[str]:
    """Returns a line for each fault of the annotations."""
    return [*_repeated(samples), *_compare(len(samples), _count(samples), task.source)]


def _compare(n: int, counts: Mapping[str, Mapping[str, int]], source: Source) -> list[str]:
    """Returns a line for each number that is not the source's."""
    lines = [] if n == source.n else [f"questions: {n}, a complete copy has {source.n}"]
    for tag, labels in source.counts.items():
        for label, expected in labels.items():
            count = counts.get(tag, {}).get(label, 0)
            if count != expected:
                lines.append(f"{tag} {label!r}: {count}, a complete copy has {expected}")
    return lines


def _look(folder: Path, names: Iterable[str], folders: Collection[str] = ()) -> Files:
    """Returns what is there of some names, `folders` of which are folders of images."""
    sizes: dict[str, int] = {}
    missing: dict[str, tuple[str, int]] = {}
    for name, wanted in sorted(Counter(names).items()):
        path = folder / name
        fault = _fault_of_folder(path) if name in folders else _fault(path)
        if fault:
            missing[name] = (fault, wanted)
        else:
            parts = path.iterdir() if name in folders else [path]
            sizes[name] = sum(part.stat().st_size for part in parts if part.is_file())
    return Files(sizes, missing)


def _fault(path: Path) -> str:
    """Returns what is wrong with a file; "": nothing that its size tells."""
    if not path.exists():
        return "is not there"
    if path.is_dir():
        return "is a folder, but no file"
    size = path.stat().st_size
    if size <= _POINTER_MAX_BYTES:
        with path.open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                return "is a pointer of Git LFS"
    return "" if size else "is empty"


def _fault_of_folder(path: Path) -> str:
    if not path.exists():
        return "is not there"
    if not path.is_dir():
        return "is no folder of images"
    return "" if any(path.iterdir()) else "is empty"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _size(count: float) -> str:
    """Returns a number of bytes with a unit.

    >>> _size(512), _size(1536), _size(3 * 2**30)
    ('512 B', '1.5 KiB', '3.0 GiB')
    """
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        units.pop(0)
    return f"{count:.0f} B" if units[0] == "B" else f"{count:.1f} {units[0]}"


def report(stock: Stock) -> list[str]:
    """Returns what the folder holds and lacks, a line each."""
    annotations = stock.annotations.values()
    lines = [
        f"{stock.task}: {stock.n} of {stock.expected} questions",
        f"annotations: {counted(len(annotations), 'file')}, "
        + _size(sum(a["bytes"] for a in annotations)),
        stock.media.line("media"),
        *([stock.subtitles.line("subtitles")] if stock.subtitles != Files({}, {}) else []),
        *(f"wrong: {line}" for line in stock.wrong),
    ]
    missing = {**stock.media.missing, **stock.subtitles.missing}
    for name, (fault, wanted) in list(missing.items())[:_SHOWN]:
        asking = counted(wanted, "question asks", "questions ask")
        lines.append(f"missing: {name} {fault}; {asking} for it")
    if len(missing) > _SHOWN:
        lines.append(f"missing: {counted(len(missing) - _SHOWN, 'more file')}")
    if missing:
        asked = f"{counted(stock.unrunnable, 'question')} cannot be asked"
        lines.append(f"missing: {counted(len(missing), 'file')} in all, so {asked}")
    if stock.subtitles.missing and not stock.unrunnable:
        lines.append("prompts without subtitles can be asked")
    if stock.packed:
        lines.append(f"{stock.packed} of them stand inside the annotations; --unpack writes them")
    if stock.archives:
        shown = ", ".join(stock.archives[:3]) + (", ..." if len(stock.archives) > 3 else "")
        lines.append(f"not unpacked? {counted(len(stock.archives), 'archive')}: {shown}")
    return lines


def manifest(stock: Stock) -> dict[str, Any]:
    """Returns what is written beside the data: the same for the same files."""
    parts = {
        kind: {
            "files": len(each.sizes),
            "bytes": sum(each.sizes.values()),
            "missing": {name: fault for name, (fault, _) in each.missing.items()},
        }
        for kind, each in (("media", stock.media), ("subtitles", stock.subtitles))
    }
    return {
        "task": stock.task,
        "n": stock.n,
        "n_expected": stock.expected,
        "n_runnable": stock.n - stock.unrunnable,
        "is_complete": stock.is_complete,
        "wrong": list(stock.wrong),
        "counts": stock.counts,
        "annotations": stock.annotations,
        **parts,
    }


def add_command(commands: Any) -> None:
    """Adds `prepare` to the commands."""
    command = commands.add_parser("prepare", help="check that a folder holds a benchmark")
    command.add_argument("task", help=TASK_HELP)
    command.add_argument("--data", required=True, help="the folder of the official files")
    command.add_argument(
        "--out", help=f"manifest to write (default: {files.MANIFEST} in that folder)"
    )
    command.add_argument(
        "--allow-missing", action="store_true", help="accept a partial copy: so are its scores"
    )
    command.add_argument(
        "--unpack", action="store_true", help="write out the media that annotation files hold"
    )
    command.set_defaults(run=run)


def run(flags: argparse.Namespace) -> None:
    """Prints what a folder holds, and writes its manifest.

    Raises:
        ValueError: something is missing or wrong, and that was not allowed, or nothing can be
            unpacked.
    """
    folder, task = Path(flags.data), find(flags.task)
    if flags.unpack:
        print(unpack(task, folder).line())
    stock = take_stock(task, folder)
    print("\n".join(report(stock)))
    out = Path(flags.out) if flags.out else folder / files.MANIFEST
    out.write_text(json.dumps(manifest(stock), indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(f"manifest: {out}")
    if stock.is_complete:
        return
    if not flags.allow_missing:
        raise ValueError(
            f"{folder} holds no complete {stock.task}; get what is missing, or score what is there "
            "with --allow-missing"
        )
    runnable = stock.n - stock.unrunnable
    print(f"partial: {runnable} of {stock.expected} questions; the score will be partial")
