"""Directories of the demo's model whose prompts end in something more, such as a think tag."""

import shutil
from pathlib import Path

from repo import DEMO_MODEL

from evr1.data.processor import Processor

START = "{{- '<|im_start|>assistant\\n' -}}"
PREFILLED = "{{- '<think>\\n' -}}"  # a template that always opens the think block
SWITCH = (  # one that opens it unless enable_thinking is false
    "{%- if enable_thinking is defined and enable_thinking is false -%}"
    "{{- '<think>\\n\\n</think>\\n\\n' -}}{%- else -%}{{- '<think>\\n' -}}{%- endif -%}"
)


def make_dir(root: Path, tail: str) -> str:
    """A directory of the demo's model with `tail` at the end of every prompt."""
    out = root / "model"
    shutil.copytree(DEMO_MODEL, out)
    template = out / "chat_template.jinja"
    text = template.read_text()
    assert text.count(START) == 1
    template.write_text(text.replace(START, START + tail))
    return str(out)


def make_processor(root: Path, tail: str, **options) -> Processor:
    """Its processor."""
    return Processor.from_hf(make_dir(root, tail), **options)
