"""Checkpoints that keep all experts of a layer in one tensor, read as one tensor an expert."""

from evr1.models.io.safetensors import Entry
from evr1.models.weights import Weight


def cut(stored: dict[str, Entry], weights: tuple[Weight, ...]) -> dict[str, Entry]:
    """Returns a checkpoint's tensors under the names of the weight map; none is read or copied.

    Of a fused tensor [E, P * rows, columns], expert e's part p is a run of bytes.

    Args:
        stored: by name.
        weights: of the model; those that have no `fused` are left alone.
    """
    out, taken = dict(stored), set()
    for weight in weights:
        for layer in weight.layers if weight.fused else ():
            name = weight.fused.format(layer)
            entry = stored.get(name)
            if entry is None:
                continue
            if len(entry.shape) == 3 and entry.shape[1] % weight.parts == 0:
                taken.add(name)
                rows, columns = entry.shape[1] // weight.parts, entry.shape[2]
                size = rows * columns * entry.dtype.itemsize
                for expert in range(entry.shape[0]):
                    offset = entry.offset + (expert * weight.parts + weight.part) * size
                    out[weight.name.format(layer, expert)] = entry._replace(
                        offset=offset, shape=(rows, columns)
                    )
    return {name: entry for name, entry in out.items() if name not in taken}
