"""A small model directory, rows with a clip, an image and text, and a way to run a command."""

import importlib
import json
import pathlib
import sys

from clips import write_clip, write_image

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODEL = str(ROOT / "evr1" / "assets" / "demo_model")
BUDGETS = ["--fps", "2", "--max_frames", "4", "--max_pixels", "4096", "--image_max_pixels", "4096"]


def load(name: str):
    """The module of a command in tools/, which finds its neighbours there."""
    if str(ROOT / "tools") not in sys.path:
        sys.path.insert(0, str(ROOT / "tools"))
    return importlib.import_module(name)


def write_rows(path: pathlib.Path, rows: list[dict]) -> str:
    """The rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path) -> list[dict]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


def write_media(root: pathlib.Path) -> str:
    """a.mp4 and b.png in a directory."""
    write_clip(root / "a.mp4", 60)
    write_image(root / "b.png")
    return str(root)


QUESTIONS = [
    {"problem": "How many digits are there?", "answer": 3, "problem_type": "numerical"},
    {"problem": "<video>How many?", "answer": 3, "problem_type": "numerical", "videos": ["a.mp4"]},
    {"problem": "Read <image> it.", "answer": "1", "problem_type": "ocr", "images": ["b.png"]},
]
