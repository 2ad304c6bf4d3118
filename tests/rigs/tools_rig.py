"""A small model directory, rows with a clip, an image and text, and a way to run a command."""

import importlib
import json
import pathlib

from clips import write_clip, write_image
from repo import DEMO_MODEL

MODEL = str(DEMO_MODEL)
BUDGETS = ["--fps", "2", "--max_frames", "4", "--max_pixels", "4096", "--image_max_pixels", "4096"]


def load(name: str):
    """A module of evr1/cli."""
    return importlib.import_module(f"evr1.cli.{name}")


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
