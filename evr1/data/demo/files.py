"""The embedded data set: mp4 clips and PNG images of moving digits, and rows that ask about them.

What is shown and asked stands in evr1/data/demo/scenes.py.
"""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import av
from PIL import Image

from evr1.data.demo import scenes

ROWS_PER_CLIP = 2
TRAIN_ROWS = 960
HELDOUT_ROWS = 240
_VERSION = 1


def write_clip(path: Path, scene: scenes.Scene) -> None:
    """Writes the scene as H.264."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=scenes.FPS, options={"preset": "ultrafast", "crf": "12"}
        )
        stream.width = stream.height = scenes.SIDE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for i in range(scenes.FRAMES):
            frame = av.VideoFrame.from_ndarray(scenes.render(scene, i / scenes.FPS), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def make_split(
    out: Path, split: str, seed: int, rows: int, per_clip: int = ROWS_PER_CLIP
) -> list[dict[str, Any]]:
    """Writes the clips and images of a split under `out`; returns its rows, with relative paths."""
    glyphs = scenes.load_glyphs(split)
    made: list[dict[str, Any]] = []
    clips = itertools.count()
    while len(made) < rows:
        clip = next(clips)
        scene, questions = scenes.draw(split, seed, clip, glyphs, min(per_clip, rows - len(made)))
        media = _write_media(out, f"{split}-{clip:05d}", scene)
        made += [_row(q, media, f"{split}-{len(made) + i:05d}") for i, q in enumerate(questions)]
    return made


def make_demo(out: str | Path, *, seed: int, train: int, heldout: int) -> None:
    """Writes train.jsonl, heldout.jsonl and their clips; a finished directory is left as it is.

    The training rows with a video and those with an image stand in train_video.jsonl and
    train_image.jsonl as well.

    Raises:
        ValueError: `out` holds a data set made with other settings, or a count is below 1.
    """
    out = Path(out)
    settings = {"version": _VERSION, "seed": seed, "train": train, "heldout": heldout}
    if min(train, heldout) < 1:
        raise ValueError(f"train={train}, heldout={heldout}: need at least one row of each")
    manifest, files = out / "demo.json", [out / "train.jsonl", out / "heldout.jsonl"]
    parts = {kind: out / f"train_{kind}.jsonl" for kind in ("video", "image")}
    if manifest.is_file():
        stored = json.loads(manifest.read_text())
        if stored != settings:
            raise ValueError(
                f"{out} holds clips made with {stored}, not {settings}; use another directory"
            )
        if all(file.is_file() for file in (*files, *parts.values())):
            return
    for folder in ("clips", "images"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    _write_whole(manifest, json.dumps(settings))  # first: the clips of an interrupted run are kept
    for file, rows in zip(files, (train, heldout), strict=True):
        lines = [json.dumps(row) + "\n" for row in make_split(out, file.stem, seed, rows)]
        _write_whole(file, "".join(lines))
    lines = files[0].read_text().splitlines(keepends=True)
    for kind, file in parts.items():
        rows_of_kind = [line for line in lines if json.loads(line)["data_type"] == kind]
        _write_whole(file, "".join(rows_of_kind))


def prepare_demo(
    workdir: str | Path, seed: int, *, train: int = TRAIN_ROWS, heldout: int = HELDOUT_ROWS
) -> None:
    """Makes the demo's data under `workdir`/data, once; a run calls it before it loads rows."""
    make_demo(Path(workdir) / "data", seed=seed, train=train, heldout=heldout)


def _row(question: scenes.Question, media: dict[str, list[str]], problem_id: str) -> dict[str, Any]:
    data_type = "video" if media["videos"] else "image"
    return {
        "problem_id": problem_id,
        "problem": f"<{data_type}>{question.problem}",
        "answer": question.answer,
        "problem_type": question.problem_type,
        "data_type": data_type,
        "options": list(question.options),
        **media,
    }


def _write_media(out: Path, name: str, scene: scenes.Scene) -> dict[str, list[str]]:
    """Writes the file of a scene whole, unless it is there already, and returns its row's paths."""
    is_image = scene.kind == "picture"
    path = Path("images", f"{name}.png") if is_image else Path("clips", f"{name}.mp4")
    if not (out / path).is_file():
        part = out / f"{path}.part"
        if is_image:
            Image.fromarray(scenes.render(scene, 0.0)).save(part, format="png")
        else:
            write_clip(part, scene)
        os.replace(part, out / path)
    return {"videos": [] if is_image else [str(path)], "images": [str(path)] if is_image else []}


def _write_whole(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)
