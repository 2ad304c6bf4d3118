"""The tensors in the files of a HF directory, by the names that they have there."""

import json
from pathlib import Path

from evr1.formats import run_files
from evr1.models.io import orbax_dir, safetensors
from evr1.models.io.safetensors import Entry

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


def entries(hf_dir: str | Path) -> dict[str, Entry]:
    """Returns the model's tensors in the directory's safetensors files.

    Raises:
        ValueError: no safetensors, a shard that the index names is missing, or a corrupt file.
    """
    return {k: v for k, v in _stored(Path(hf_dir)).items() if not k.startswith(_DRAFT)}


def drafts(path: str | Path) -> dict[str, Entry]:
    """Returns the layers for speculative decoding of a HF or Orbax directory.

    They are no part of the model, and transformers passes over them too; exports copy them.
    """
    root = run_files.start_dir(path)
    if orbax_dir.is_orbax(root):
        file = root / orbax_dir.SIDE / orbax_dir.DRAFTS
        return safetensors.read_header(file) if file.is_file() else {}
    tensors = _stored(root) if has_weights(root) else {}
    return {k: v for k, v in tensors.items() if k.startswith(_DRAFT)}


_DRAFT = "mtp."


def has_weights(root: Path) -> bool:
    """Returns whether a directory holds tensors."""
    return any((root / name).is_file() for name in (INDEX, SINGLE))


def _stored(root: Path) -> dict[str, Entry]:
    """Returns every tensor in the directory."""
    if (root / SINGLE).is_file():  # goes first where there are both, as in transformers
        files = [SINGLE]
    elif (root / INDEX).is_file():
        try:
            where = json.loads((root / INDEX).read_text("utf-8"))["weight_map"]
            files = sorted({str(file) for file in where.values()})
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise ValueError(f"{root / INDEX}: not an index ({e}); copy the file again") from None
    else:
        raise ValueError(f"{root}: neither {SINGLE} nor {INDEX}; evr1 reads safetensors only")
    missing = [n for n in files if not (root / n).is_file()]
    if missing:
        raise ValueError(f"{root}: {INDEX} names {', '.join(missing)}, not there; copy them again")
    tensors: dict[str, Entry] = {}
    for name in files:
        for key, entry in safetensors.read_header(root / name).items():
            if key in tensors:
                first = tensors[key].file.name
                raise ValueError(f"{root}: {key} stands in {first} and in {name}; remove one")
            tensors[key] = entry
    return tensors
