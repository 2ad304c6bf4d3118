"""A small random Qwen3-VL, random examples, and a sampler with room for them."""

import functools

import jax
import models_oracle as oracle
import numpy as np

from evr1.batch.shapes import ShapeTable
from evr1.data.records import Example, Geometry, Row
from evr1.models.families import qwen3_vl
from evr1.sampler import Sampler

GEOMETRY = Geometry(patch_size=4, temporal_patch_size=2, merge_size=2)
SHAPES = ShapeTable(prompt_tokens=(48,), vision_rows=(3,), row_patches=24, completion_tokens=32)


@functools.cache
def model(dtype: str = "float32"):
    """The model, without parameters."""
    return qwen3_vl.build(oracle.CONFIG, dtype=dtype, remat="none")


@functools.cache
def params():
    """Random parameters with distributions far from uniform; of NumPy, which compiles nothing."""
    rng = np.random.default_rng(1)

    def draw(path, x):
        noise = rng.normal(size=x.shape).astype(np.float32)
        if path[-1].key == "scale":
            return 1 + 0.1 * noise
        return noise * (1.5 * x.shape[-2] ** -0.5 if x.ndim > 1 else 0.1)

    return jax.device_put(jax.tree_util.tree_map_with_path(draw, model().abstract_params()))


def example(parts, seed: int = 0) -> Example:
    """A random prompt, see `models_oracle.prompt`."""
    return as_example(oracle.prompt(np.random.default_rng(seed), parts), seed)


def text_example(tokens, index: int = 0) -> Example:
    """A prompt of these tokens."""
    positions = np.tile(np.arange(len(tokens), dtype=np.int32), (3, 1))
    return as_example(oracle.Prompt(np.array(tokens, np.int32), positions, (), None), index)


def as_example(prompt: oracle.Prompt, index: int = 0) -> Example:
    """A prompt of `models_oracle` as the data pipeline would give it."""
    row = Row(index, "?", None, "numerical", "text", (), (), (), str(index), None, None, "x:1", {})
    patches = [m[2] for m in prompt.media] or [np.zeros((0, oracle.VALUES), np.uint8)]
    return Example(
        row=row,
        tokens=prompt.tokens,
        is_visual=np.isin(prompt.tokens, (oracle.IMAGE, oracle.VIDEO)),
        positions=prompt.positions,
        next_position=int(prompt.positions.max()) + 1,
        patches=np.concatenate(patches),
        grid_thw=np.array([m[1] for m in prompt.media], np.int32).reshape(-1, 3),
        is_image=np.array([m[0] == "image" for m in prompt.media], bool),
    )


def sampler(n: int = 2, slots: int = 4, window: int = 8, **options) -> Sampler:
    """A sampler of the model."""
    return Sampler(
        options.pop("model", model()),
        shapes=options.pop("shapes", SHAPES),
        geometry=GEOMETRY,
        pos_grid=oracle.SIDE,
        n=n,
        slots=slots,
        window=window,
        pad_id=0,
        **options,
    )
