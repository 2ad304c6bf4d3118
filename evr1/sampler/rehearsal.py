"""Has a sampler's programs compiled: its calls are made on prompts without contents."""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from evr1.batch import features
from evr1.batch.collate import empty_prompts
from evr1.parallel.ahead import Compiler
from evr1.parallel.sharding import put_batch
from evr1.sampler import engine as engine_lib
from evr1.sampler.actor import Actor
from evr1.sampler.driver import Sampler
from evr1.sampler.sampling import RowIds, Sampling
from evr1.types import Params, Prompts, Questions, Visual

Visuals = Mapping[int, Visual]  # features of a prompt, all 0, by its vision rows


def rehearse(
    sampler: Sampler,
    compiler: Compiler,
    params: Params,
    sampling: Sampling,
    visuals: Visuals,
    *,
    is_carried: bool = False,
) -> None:
    """Has all compiled that `Sampler.generate` will run on prompts in the pairs of its shapes.

    Args:
        sampler: whose shapes are planned.
        compiler: gets the programs.
        params: weights to draw with.
        sampling: how to draw.
        visuals: see `blank_visuals`.
        is_carried: completions may be drawn in several rollouts.
    """
    groups, n, shapes = sampler.prefill_groups, sampler.n, sampler.shapes
    rooms: list[int] = []
    while is_carried and (room := sampler.room(rooms[-1] // 2 if rooms else 10**9)) not in rooms:
        rooms.append(room)
    engine = sampler.engine(sampling, shapes.largest[0])
    engine = dataclasses.replace(engine, call=compiler.call)
    with _mesh(sampler):
        prompts = [_blank(sampler, groups, p, f, visuals) for p, f in reversed(shapes.pairs)]
        for each in prompts:  # on several devices the calls below wait for each of them
            compiler.add(engine_lib.read_prompts, sampler.model, params, each, None)
        ids, slots = RowIds.of_groups(np.zeros(groups), n), np.full(groups, sampler.slots, np.int32)
        state = engine.init_decode_state(params)
        for each in prompts:
            for room in (0, *rooms):
                asked = _questions(sampler, room)
                prefix = engine.prefill(params=params, prompts=each, ids=ids, **asked)
                state = engine.insert(prefix, state, slots)
        drawn = range(0, sampling.max_tokens + 1, sampler.window)
        for tokens in {engine.room(tokens): tokens for tokens in drawn}.values():
            engine.generate(params, state, tokens)


def blank_visuals(actor: Actor, compiler: Compiler, params: Params) -> Visuals:
    """Returns the features of a prompt for each pair; none where prompts keep their pixels.

    The programs of the tower are compiled meanwhile, but those that only fit features run.
    """
    encoder, shapes = actor.encoder, actor.shapes
    if encoder is None:
        return {}
    assert shapes is not None
    sampler, visuals = actor.sampler(1, shapes), dict[int, Visual]()
    with _mesh(sampler):
        for p, f in reversed(shapes.pairs):
            vision = _blank(sampler, encoder.groups, p, f, {}).vision
            call = (features.encode_prompts, encoder.model, params, vision)
            visuals[f] = jax.tree.map(
                lambda x: (
                    np.zeros(x.shape, x.dtype)
                    if encoder.on_host
                    else jax.device_put(np.zeros(x.shape, x.dtype), x.sharding)
                ),
                compiler.call(*call)[0],
            )
    return visuals


def stack_visuals(visuals: Visuals, groups: int, tokens: int) -> Visual:
    """Returns features of so many prompts, from prompts of all sizes."""
    return [features.stack([visual] * groups, tokens) for visual in visuals.values()][-1]


def _blank(sampler: Sampler, groups: int, p: int, f: int, visuals: Visuals) -> Prompts:
    """Returns prompts of padding, on the devices, with pixels or features."""
    row_patches, vision = sampler.shapes.row_patches, sampler.model.config.vision
    prompts: Any = empty_prompts(groups, p, (f, row_patches))
    if visuals:
        media: Any = stack_visuals(visuals, groups, f * row_patches // vision.merge**2)
    else:
        patches = np.zeros((groups, f, row_patches, vision.patch_values), np.uint8)
        media = prompts.vision._replace(patches=patches)
    return put_batch(sampler.mesh, prompts._replace(vision=media))


def _questions(sampler: Sampler, room: int) -> dict[str, Any]:
    """Returns what a prefill is given of completions that go on; {} where they begin."""
    if not room:
        return {}
    shape = sampler.prefill_groups, sampler.n
    asked = Questions(np.zeros((*shape, room), np.int32), np.zeros(shape, np.int32))
    is_open = np.zeros(shape, bool)
    return {
        "questions": put_batch(sampler.mesh, asked),
        "is_open": put_batch(sampler.mesh, is_open),
    }


def _mesh(sampler: Sampler) -> Any:
    return contextlib.nullcontext() if sampler.mesh is None else jax.set_mesh(sampler.mesh)
