"""What convert_checkpoint.py does, once its flags are read; not a command of its own."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from evr1.data import processor
from evr1.data.media import video_budget
from evr1.data.media.content import file_identity
from evr1.data.records import Budgets
from evr1.formats import run_files
from evr1.models import load_model
from evr1.models.io import hf, orbax_dir, peft_read, runs
from evr1.models.tree import unflatten


def hf_to_orbax(source: Path, out: Path, dtype: str | None) -> str:
    """Writes the Orbax directory; returns what was done, in a line.

    Raises:
        ValueError: the source does not hold a model that evr1 knows, or `out` something else.
    """
    model = load_model(str(source))
    found = hf.read_entries(source, model)
    tensors = {name: [dtype or str(e.dtype), list(e.shape)] for name, e in found.items()}
    digest = _digest(source)
    if out.exists():
        is_same = orbax_dir.is_orbax(out) and orbax_dir.record(out) == tensors
        if is_same and orbax_dir.origin(out) == digest:
            return f"{out}: already there, with the same tensors; nothing to do"
        raise ValueError(f"{out}: exists and holds something else; choose another or remove it")
    params = hf.lazy_params(source, model, dtype)
    with _bar("convert", sum(x.nbytes for x in params.values())) as bar:
        tree, files = unflatten(params), hf.side_files(source)
        orbax_dir.save(
            tree,
            tensors,
            files,
            out,
            drafts=hf.drafts(source),
            made_from=digest,
            on_block=bar.update,
        )
    return f"{out}: {len(tensors)} tensors"


def _bar(what: str, total: int) -> tqdm:
    return tqdm(desc=what, total=total, unit="B", unit_scale=True)


def _digest(source: Path) -> str:
    """Returns a digest of the weight files: their names and samples of what they hold."""
    files = sorted(source.glob("*.safetensors"))
    text = json.dumps([[file.name, file_identity(file)] for file in files])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def orbax_to_hf(
    source: Path, out: Path, dtype: str | None, max_shard_bytes: int, adapter: Path | None = None
) -> str:
    """Writes the HF directory, the adapter added to it; returns what was done, in a line.

    Raises:
        ValueError: the source was not written by this tool, or does not fit its config, or the
            adapter is of another model.
    """
    if not orbax_dir.is_orbax(source):
        raise ValueError(f"{source}: no {orbax_dir.RECORD}; give a directory that --to_orbax made")
    model = load_model(str(source))
    known = peft_read.read(adapter, model) if adapter else None
    shapes, read = orbax_dir.reader(source, model.abstract_params())
    tensors, record = hf.listing(model, shapes, hf.layout(source)), orbax_dir.record(source)
    named = [(t.name, t.shape, np.dtype(dtype or record[t.name][0])) for t in tensors]

    def values() -> Iterator[np.ndarray]:
        made = hf.values(tensors, peft_read.adding(known, read) if known else read)
        sizes = [math.prod(shape) * kind.itemsize for _, shape, kind in named]
        with _bar("convert", sum(sizes)) as bar:
            for size in sizes:
                bar.update(size)  # whoever takes the last value does not come back
                yield next(made)

    hf.write_dir(out, named, values(), source, max_shard_bytes)
    return f"{out}: {len(tensors)} tensors"


def run_to_hf(run: Path, step: str, out: Path, dtype: str | None, max_shard_bytes: int) -> str:
    """Writes the HF directory of a run's checkpoint; returns what was done, in a line.

    Args:
        run: workdir.
        step: a number, "best", or "" for the newest.
        out: see `hf.write_dir`.
        dtype: of the tensors; None: that of the run's own exports.
        max_shard_bytes: of a file.

    Raises:
        ValueError: it is no run, or has no such checkpoint.
    """
    path = run / run_files.FOLDER / step if step else run
    if not run_files.is_run(run):
        raise ValueError(f"{run}: no config.json of a run; give the workdir of a training")
    found = run_files.find(path)
    assert found is not None
    kind: str = dtype or found.config["checkpoint"]["export_dtype"]
    model = load_model(found.directory)
    params = runs.load_params(found.directory, model, dtype=kind)
    files = processor_files(found.config["data"], hf.side_dir(found.start))
    hf.save_params(
        params,
        model,
        out,
        source_dir=found.start,
        dtype=kind,
        max_shard_bytes=max_shard_bytes,
        files=files,
    )
    return f"{out}: step {found.step} of {run}, in {kind}"


def processor_files(data: Mapping[str, Any], side: Path) -> dict[str, str]:
    """Returns the processor files with the budgets of a run, by name, as its own export has them.

    Args:
        data: the fields `data.*` of its config.
        side: of the processor files that it began with.
    """
    names = [field.name for field in dataclasses.fields(Budgets) if field.name in data]
    limits = video_budget.of_directory(Budgets(**{name: data[name] for name in names}), side)
    return video_budget.exported(side, limits, processor.geometry_of(side))
