"""Features of a frozen vision tower: computed once a step, then used in place of the pixels.

Rollout, reference and update of a step read the same features, and programs that are given features
hold no tower. An example carries its own from the draw to the end of the step.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from evr1.batch.collate import fill_patches
from evr1.data.records import Example
from evr1.models import Model
from evr1.parallel import hosts, sharding
from evr1.types import Params, Prompts, VisionInput, Visual

DEVICE_BYTES = 4 * 2**30  # of a device; features that need more wait in the host's memory


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A frozen vision tower.

    Attributes:
        model: whose tower it is.
        prompts: makes one record of some examples, with their pixels, padded and on the devices.
        groups: how many it takes at a time.
        held_bytes: of a device, for the features of a step.
        on_host: where features wait until they are used.
        mesh: that draws; None: one device.
    """

    model: Model
    prompts: Callable[[Sequence[Example]], Prompts]
    groups: int
    held_bytes: int
    on_host: bool
    mesh: jax.sharding.Mesh | None = None

    def __call__(self, params: Params, examples: Sequence[Example]) -> list[Example]:
        """Returns the examples, which have no features yet, with them, in their order."""
        with contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh):
            return self._encode(params, examples)

    def _encode(self, params: Params, examples: Sequence[Example]) -> list[Example]:
        out = list(examples)
        # Like sizes together, as the sampler has them: less padding, and the same shapes.
        order = sorted(range(len(out)), key=lambda i: (-len(out[i].patches), -len(out[i].tokens)))
        visuals: list[Visual] = []
        for start in range(0, len(order), self.groups):
            chosen = order[start : start + self.groups]
            vision = self.prompts([out[i] for i in chosen]).vision
            jax.block_until_ready(visuals)  # else the pixels of all passes are on the devices
            visuals = encode_prompts(self.model, params, vision)
            visuals = jax.device_get(visuals) if self.on_host else visuals
            for i, visual in zip(chosen, visuals, strict=False):  # then padding
                out[i] = dataclasses.replace(out[i], visual=visual)
        jax.block_until_ready(visuals)
        return out

    def describe(self) -> str:
        """Returns a line for the user."""
        where = "in host memory" if self.on_host else "on each device"
        return (
            "vision tower frozen: its features are computed once a step, at most "
            f"{self.held_bytes / 2**20:,.0f} MiB {where}"
        )


def make_encoder(
    model: Model,
    prompts: Callable[[Sequence[Example]], Prompts],
    *,
    groups: int,
    held: int,
    patches: int,
    mesh: jax.sharding.Mesh | None,
) -> Encoder:
    """Returns the tower of this model.

    Args:
        model: the model.
        prompts: see `Encoder`.
        groups: prompts of a pass.
        held: prompts whose features are there at the same time.
        patches: of the largest prompt, padded.
        mesh: where parameters lie; None: one device.
    """
    size = bytes_of_features(model, held * patches)
    # Simulated CPU devices hang when two programs that talk to others overlap.
    is_simulated = mesh is not None and jax.default_backend() == "cpu"
    part = size // (1 if mesh is None else mesh.size)
    on_host = is_simulated or hosts.count() > 1 or part > DEVICE_BYTES
    return Encoder(model, prompts, groups, size if on_host else part, on_host, mesh)


def bytes_of_features(model: Model, patches: int) -> int:
    """Returns the bytes of the features of so many patches."""
    vision = model.config.vision
    values = patches // vision.merge**2 * vision.out_width * (1 + len(vision.taps))
    return values * jnp.dtype(model.dtype).itemsize


def without_features(example: Example) -> Example:
    """Returns the example with its pixels alone."""
    return dataclasses.replace(example, visual=None)


def with_vision(
    prompts: Prompts,
    examples: Sequence[Example | None],
    merge: int,
    like: Example | None = None,
) -> Prompts:
    """Returns prompts that were collated without patches, with their media: features where the
    examples have them, else patches.

    Args:
        prompts: host arrays; rows and order of the groups may have been cut and changed since.
        examples: the prompt of each group; None for padding.
        merge: patches on a side of a visual token.
        like: has the sizes where all is padding.
    """
    first = next((e for e in examples if e is not None), like)
    assert first is not None
    if first.visual is None:
        return fill_patches(prompts, examples, first.patches.shape[1])
    # Padding groups repeat the first one's features: none of their tokens is a visual one.
    filled = [(first if e is None else e).visual for e in examples]
    visuals = [visual for visual in filled if visual is not None]
    assert len(visuals) == len(filled), "some examples of the batch have no features"
    _, rows, row_patches = prompts.vision.segment_ids.shape
    return prompts._replace(vision=stack(visuals, rows * row_patches // merge**2))


def stack(visuals: Sequence[Visual], tokens: int) -> Visual:
    """Returns the features of several prompts as one record, cut or padded to so many tokens."""
    if isinstance(visuals[0].embeds, np.ndarray):
        fitted = [jax.tree.map(lambda x: _fit(x, tokens, np), visual) for visual in visuals]
        return jax.tree.map(lambda *parts: np.stack(parts), *fitted)
    # Two steps: one would be a program for every mixture of sizes.
    fitted = [v if v.embeds.shape[-2] == tokens else _fit_visual(v, tokens) for v in visuals]
    return _stack(fitted)


@functools.partial(jax.jit, static_argnums=0)
def encode_prompts(model: Model, params: Params, vision: VisionInput) -> list[Visual]:
    """Returns the features of each prompt.

    Their width is spread over all devices, so that every prompt's can go to any of them.
    """

    def spread(x):
        return sharding.constrain(x, *[None] * (x.ndim - 1), "all")

    visual = jax.tree.map(spread, model.encode(params, vision))
    return [Visual(*one) for one in zip(*visual, strict=True)]


@functools.partial(jax.jit, static_argnames="tokens")
def _fit_visual(visual: Visual, tokens: int) -> Visual:
    return jax.tree.map(lambda x: _fit(x, tokens, jnp), visual)


@jax.jit
def _stack(visuals: list[Visual]) -> Visual:
    return jax.tree.map(lambda *parts: jnp.stack(parts), *visuals)


def _fit(x, tokens: int, xp):
    """Returns [..., T, D] cut or padded to T = tokens; `xp` is numpy or jax.numpy."""
    short = max(tokens - x.shape[-2], 0)
    return xp.pad(x[..., :tokens, :], [*[(0, 0)] * (x.ndim - 2), (0, short), (0, 0)])
