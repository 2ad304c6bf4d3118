"""Where things stand in the repository: the tests name no other path of it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"  # what was recorded from the reference and from transformers
TINY = GOLDEN / "qwen_tiny"  # tokenizer and processor files of a few hundred entries
DEMO_MODEL = ROOT / "evr1" / "assets" / "demo_model"
