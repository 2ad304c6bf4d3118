"""A name for what a model directory holds, which a copy of it shares and a further training not."""

import hashlib
from pathlib import Path

from evr1.formats import run_files
from evr1.models.io import hf, orbax_dir

_BLOCK_BYTES = 16384
_BLOCKS = 256  # of a file that are looked at: 4 MiB
_SETTINGS = {".json", ".jinja", ".txt"}  # config, tokenizer, chat template


def of_model(path: str | Path) -> str:
    """Returns a hash of a model's weights, tokenizer and settings; "" where there is no model.

    Of a large file it takes the size and 256 blocks that are spread evenly, so that eight billion
    parameters take a second. A training or a merge changes them; a change of a single small tensor
    may lie between them.

    Args:
        path: HF or Orbax directory, or a run's checkpoint.
    """
    root, start = Path(path), ""
    if run := run_files.find(path):
        root, start = run.directory, of_model(run.start)  # under adapters it is a part of it
        weights = [file for file in (root / run_files.STATE).rglob("*") if file.is_file()]
    elif orbax_dir.is_orbax(root):
        weights = [file for file in (root / orbax_dir.PARAMS).rglob("*") if file.is_file()]
    elif hf.is_hf(root):
        weights = list(root.glob("*.safetensors"))
    else:
        return ""
    settings = [] if start else [f for f in hf.side_files(root) if f.suffix in _SETTINGS]
    digest = hashlib.sha256(start.encode())
    for file in sorted([*weights, *settings]):
        digest.update(f"{file.relative_to(root).as_posix()}\0{file.stat().st_size}\0".encode())
        digest.update(_sampled(file))
    return digest.hexdigest()[:32]


def _sampled(file: Path) -> bytes:
    """Returns the hash of blocks of a file, its first and its last among them; of a small one, all.

    The places are even on a scale of the size, so the same for equal files.
    """
    size = file.stat().st_size
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        if size <= _BLOCKS * _BLOCK_BYTES:
            digest.update(opened.read())
            return digest.digest()
        for place in range(_BLOCKS):
            opened.seek((size - _BLOCK_BYTES) * place // (_BLOCKS - 1))
            digest.update(opened.read(_BLOCK_BYTES))
    return digest.digest()
