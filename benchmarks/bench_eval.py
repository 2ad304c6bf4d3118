"""Benchmarks as a job against a plain loop: `python benchmarks/bench_eval.py [--json OUT]`.

Every clip has several questions. The plain loops decode the clip and generate, one question at a
time, with the same model: once by evr1's own sampler, once by transformers (where torch is
installed). The job decodes and encodes a clip once, and its questions share the prefilled video.
All run on one core and take turns; the responses of the first two are the same.

--memory shows the job's peak memory instead, with ten times the clips.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before any thread is there

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import av  # noqa: E402  the path comes first
import numpy as np  # noqa: E402
from rich.console import Console  # noqa: E402

from benchmarks import common  # noqa: E402
from benchmarks.random_model import DEMO, WIDER, write_model  # noqa: E402
from evr1.config import evals  # noqa: E402
from evr1.data.media.source import MediaSource  # noqa: E402
from evr1.data.records import Example  # noqa: E402
from evr1.evals import job  # noqa: E402
from evr1.evals.packs import Asker, bundles  # noqa: E402
from evr1.evals.samples import Answer  # noqa: E402
from evr1.evaluate import use_whole_vectors  # noqa: E402

WORDS = (
    "red",
    "blue",
    "disc",
    "square",
    "left",
    "right",
    "first",
    "last",
    "door",
    "counts",
    "turns",
)
TASK = '''"""Clips of the speed benchmark."""
from evr1.evals.tasks import data_rows
from evr1.evals.tasks.base import Source, Task

TASK = Task(
    name="bench_clips",
    source=Source(hub=("clips",), n={n}, frames="smoke"),
    load=data_rows.loader("questions.jsonl"),
    prompts={{"training": data_rows.ask}},
    rules={{"evr1": data_rows.by_reward}},
)
'''


def write_data(folder: Path, clips: int, questions: int, seconds: int) -> None:
    """Writes clips of 320 x 240 at 10 frames a second, rows, and the file of the task."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for clip in range(clips):
        name = f"{clip:04d}.mp4"
        _write_clip(folder / name, rng.integers(0, 255, (2, 3)), seconds)
        for place in range(questions):
            words = " ".join(rng.choice(WORDS, 12))
            rows.append(
                {
                    "problem": f"Question {place}: {words}?",
                    "answer": "red",
                    "problem_type": "open-ended",
                    "data_type": "video",
                    "videos": [name],
                    "problem_id": f"{clip:04d}-{place}",
                }
            )
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "questions.jsonl").write_text(lines)
    (folder / "bench_clips.py").write_text(TASK.format(n=len(rows)))


def _write_clip(path: Path, colours: np.ndarray, seconds: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for t in range(10 * seconds):
            image = np.broadcast_to(colours[0].astype(np.uint8), (240, 320, 3)).copy()
            image[80:160, (7 * t) % 260 :][:, :60] = colours[1]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def settings(
    model: Path, data: Path, tokens: int, questions: int, preset: str = ""
) -> evals.BenchmarkSettings:
    """Returns the settings of the job; `preset` as in `evr1/config/evals.py`."""
    config = evals.get_config()
    config.update(
        {
            "workdir": str(data / "run"),
            "model": str(model),
            "tasks": (str(data / "bench_clips.py"),),
            "folders": (("bench_clips", str(data)),),
            "dtype": "float32",
            "max_tokens": tokens,
            "preset": preset,
            "workers": 1,
            "rows": questions,
            "slots": 4,
        }
    )
    return evals.resolve(config)


@dataclasses.dataclass(frozen=True)
class Contest:
    """What the variants share: one opened model, and a task."""

    answerer: job.Answerer
    prepared: job.Prepared

    def by_job(self) -> dict[str, str]:
        """Returns the response to each question, answered as a job."""
        answers: list[Answer] = []
        quiet = Console(quiet=True)
        self.answerer.answer(self.prepared, job.Part(), frozenset(), answers.append, quiet)
        return {answer.sample.id: answer.responses[0] for answer in answers}

    def one_by_one(self, generate: Callable[[Example], str]) -> dict[str, str]:
        """Returns them from a plain loop: decode the clip, generate, next question."""
        return {name: generate(example) for name, example in self.examples()}

    def examples(self) -> Iterator[tuple[str, Example]]:
        """Yields each question as a whole prompt, its clip decoded for it alone."""
        processor = self.answerer.actor.processor
        source = MediaSource(
            budgets=self.prepared.preset.budgets(),
            geometry=processor.geometry,
            pool=self.answerer.pool,
            media_dir=str(self.prepared.folder),
        )
        prompt = self.prepared.task.prompts[self.prepared.prompt]
        asker = Asker(self.prepared.folder, prompt, processor, 1)
        for bundle in bundles(self.prepared.samples):
            for sample in bundle.samples:
                media = [source.load(request) for request in bundle.media]
                row, shown, _ = asker.row(sample, media)
                yield sample.id, processor.encode(row, shown, raw=True)

    def by_sampler(self, example: Example) -> str:
        """Returns a response drawn by evr1's sampler, alone."""
        actor, tokens = self.answerer.actor, self.answerer.settings.max_tokens
        sampling = actor.sampling(temperature=0.0, max_tokens=tokens)
        rollouts = actor.generate(self.answerer.params, [example], [0], sampling, slots=1)
        return actor.texts(rollouts)[0]


def make_transformers(model: Path, contest: Contest) -> Callable[[Example], str] | None:
    """Returns what generates with transformers; None where torch is not installed."""
    try:
        import torch
    except ImportError:
        return None
    if importlib.util.find_spec("torchvision") is not None:
        # Where its compiled half is missing, as for some CPUs, it fails at import without these.
        with contextlib.suppress(RuntimeError):
            library = torch.library.Library("torchvision", "FRAGMENT")
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import transformers

    torch.set_num_threads(1)
    theirs: Any = transformers.Qwen3VLForConditionalGeneration.from_pretrained(model).eval()
    processor = contest.answerer.actor.processor
    tokens = contest.answerer.settings.max_tokens

    def generate(example: Example) -> str:
        ids = torch.from_numpy(example.tokens.astype(np.int64))[None]
        pixels = (example.patches.astype(np.float32) / 255 - 0.5) / 0.5
        with torch.no_grad():
            out = theirs.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                mm_token_type_ids=torch.from_numpy(2 * example.is_visual.astype(np.int64))[None],
                pixel_values_videos=torch.from_numpy(pixels),
                video_grid_thw=torch.from_numpy(example.grid_thw.astype(np.int64)),
                do_sample=False,
                max_new_tokens=tokens,
                eos_token_id=list(processor.end_ids),
                suppress_tokens=list(processor.banned_ids),
                pad_token_id=processor.pad_id,
            )
        return processor.decode(out[0, ids.shape[1] :].tolist())

    return generate


def measure(
    made: evals.BenchmarkSettings, questions: int, repeats: int, *, has_theirs: bool
) -> dict[str, Any]:
    """Returns one line of the table."""
    with job.opened(made) as answerer:
        [prepared] = job.prepare(made)
        contest = Contest(answerer, prepared)
        works = {
            "job": contest.by_job,
            "loop": lambda: contest.one_by_one(contest.by_sampler),
        }
        theirs = make_transformers(Path(made.model or ""), contest) if has_theirs else None
        if theirs is not None:
            works["transformers"] = lambda: contest.one_by_one(theirs)
        said = {name: work() for name, work in works.items()}  # and the programs are compiled
        seconds = common.time_side_by_side(works, repeats, warmups=0)
        longest = max(len(example.tokens) for _, example in contest.examples())
    count = len(prepared.samples)
    job_s = seconds["job"]
    return {
        "questions a clip": questions,
        "prompt tokens": longest,
        "questions/s": count / sorted(job_s)[len(job_s) // 2],
        "times the loop": common.ratio(seconds["loop"], job_s),
        "times transformers": common.ratio(seconds["transformers"], job_s) if theirs else "-",
        "same as the loop": _same(said["job"], said["loop"]),
        "same as transformers": _same(said["job"], said["transformers"]) if theirs else "-",
    }


def _same(one: dict[str, str], other: dict[str, str]) -> str:
    return f"{sum(other[name] == text for name, text in one.items())} of {len(one)}"


def peak_mib(clips: int) -> float:
    """Returns the peak memory of this process after a job over so many clips."""
    with tempfile.TemporaryDirectory() as root:
        data = Path(root) / "data"
        write_data(data, clips, 4, 10)
        made = settings(DEMO, data, 16, 4)
        with job.opened(made) as answerer:
            [prepared] = job.prepare(made)
            Contest(answerer, prepared).by_job()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _peak_of(clips: int) -> float:
    command = [sys.executable, __file__, f"--peak={clips}"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=16, help="of a response, at most")
    parser.add_argument("--seconds", type=int, default=20, help="of a clip")
    parser.add_argument("--preset", default="", help="of frames; ovo_bench suits a minute")
    parser.add_argument("--models", nargs="+", default=["demo", "30M"], choices=["demo", "30M"])
    parser.add_argument("--questions", nargs="+", type=int, default=[8, 3, 1], help="a clip")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="the peak memory instead")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", help="also write the figures there")
    flags = parser.parse_args()
    if flags.peak:
        print(peak_mib(flags.peak))
        return
    if flags.memory:
        rows = [{"clips": n, "peak MiB": _peak_of(n)} for n in (flags.clips, 10 * flags.clips)]
        common.show("memory of a job of benchmarks", rows, flags.json)
        return
    use_whole_vectors()
    rows = []
    with tempfile.TemporaryDirectory() as root:
        wider = Path(root) / "model"
        write_model(wider, WIDER)
        models = {"demo": DEMO, "30M": wider}
        for name in flags.models:
            for questions in flags.questions:
                data = Path(root) / f"{name}-{questions}"
                write_data(data, flags.clips, questions, flags.seconds)
                made = settings(models[name], data, flags.tokens, questions, flags.preset)
                line = measure(made, questions, flags.repeats, has_theirs=True)
                rows.append({"model": name, **line})
                print(rows[-1], flush=True)  # the whole table takes long
    common.show("questions a second, one core", rows, flags.json)


if __name__ == "__main__":
    main()
