"""Every jitted program of a run's device, with the arguments of its largest call.

The learner and the actor call these functions; `evr1 plan` compiles the same ones for devices
that are not there.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import numpy as np
import optax
from jax.stages import Wrapped

from evr1.batch import features
from evr1.batch.assemble import group_batch
from evr1.batch.collate import empty_prompts
from evr1.batch.shapes import ShapeTable
from evr1.config.learner import LearnerSettings
from evr1.learner import critic as critic_lib
from evr1.learner import optimizer as optimizer_lib
from evr1.learner.critic import Critic, make_critic
from evr1.learner.loss import loss_config
from evr1.learner.optimizer import AdamW, make_optimizer, make_schedule
from evr1.learner.selection import neutral
from evr1.learner.update import (
    TrainState,
    Update,
    init_state,
    make_logprobs,
    make_update,
    train_state_shardings,
)
from evr1.models import Model, lora
from evr1.models.io import peft_read
from evr1.parallel import sharding
from evr1.parallel.mesh import actor_mesh
from evr1.sampler import engine
from evr1.sampler import weights as sampler_weights
from evr1.sampler.sampling import Sampling, make_draws
from evr1.types import GroupBatch, Params, Prompts, Rollouts


@dataclasses.dataclass(frozen=True)
class Programs:
    """The jitted programs of a learner; nothing is compiled until they are called.

    Attributes:
        model: what is trained, with its adapters.
        mesh: of the devices; None: one device.
        actor_mesh: the same devices, as they draw.
        optimizer: of the policy.
        schedule: optimizer update -> learning rate.
        freeze: patterns of the parameters that are not trained.
        update: of the policy.
        logprobs: of completions.
        critic: None where the advantages need none.
        scored: log-probabilities and entropies of completions; None where no entropies are needed.
    """

    model: Model
    mesh: jax.sharding.Mesh | None
    actor_mesh: jax.sharding.Mesh | None
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    freeze: tuple[str, ...]
    update: Update
    logprobs: Callable
    critic: Critic | None
    scored: Callable | None = None

    @property
    def has_frozen_tower(self) -> bool:
        """Whether neither the vision tower nor an adapter in it is trained."""
        params = self.model.abstract_params()
        is_frozen = optimizer_lib.is_frozen(params, self.freeze, "vision")
        return is_frozen and "vision" not in params.get("lora", {})


def make_programs(
    settings: LearnerSettings, model: Model, mesh: jax.sharding.Mesh | None
) -> Programs:
    """Returns the programs that train this model.

    Args:
        settings: of the learner.
        model: without adapters.
        mesh: of the devices; None: one device.

    Raises:
        ValueError: the settings do not fit the model.
    """
    o, a = settings.optim, settings.algorithm
    model, freeze = _adapted(settings, model)
    if a.balance_coef and not model.config.experts_per_token:
        raise ValueError(
            f"algorithm.balance_coef={a.balance_coef}: {settings.model} has no experts; set it to 0"
        )
    schedule = make_schedule(
        o.schedule,
        o.learning_rate,
        settings.total_updates,
        warmup_updates=o.warmup_steps,
        min_learning_rate=o.min_learning_rate,
    )
    optimizer = make_optimizer(schedule, adamw(settings), freeze)
    temperature = settings.rollout.temperature
    scored = None
    if a.entropy_share < 1:
        scored = make_logprobs(model, temperature=temperature, mesh=mesh, has_entropy=True)
    programs = Programs(
        model=model,
        mesh=mesh,
        actor_mesh=actor_mesh(mesh, model.config.kv_heads, settings.rollout.tensor),
        optimizer=optimizer,
        schedule=schedule,
        freeze=freeze,
        update=make_update(model, optimizer, loss_config(settings), freeze=freeze, mesh=mesh),
        logprobs=make_logprobs(model, temperature=temperature, mesh=mesh),
        critic=None,
        scored=scored,
    )
    if not settings.has_critic:
        return programs
    return dataclasses.replace(programs, critic=_critic(settings, programs))


def adamw(settings: LearnerSettings) -> AdamW:
    """Returns the settings of the optimizer."""
    return AdamW(**{name: getattr(settings.optim, name) for name in AdamW._fields})


def _adapted(settings: LearnerSettings, model: Model) -> tuple[Model, tuple[str, ...]]:
    """Returns the model with the config's adapters, and the patterns of what is frozen."""
    adapters, freeze = settings.lora, settings.optim.freeze
    if not adapters.is_on:
        return model, freeze
    if adapters.is_continued:
        known = peft_read.read(adapters.adapter, model)
        if adapters.rank not in (0, known.rank):
            raise ValueError(
                f"lora.rank={adapters.rank}: the adapter in {adapters.adapter} has rank"
                f" {known.rank}; leave it out, or set lora.merge_adapter for new ones"
            )
        adapted = known.adapt(model, dropout=adapters.dropout, seed=settings.seed)
        return adapted, lora.freeze(adapted, freeze)
    adapted = lora.adapt(
        model,
        rank=adapters.rank,
        alpha=adapters.alpha,
        targets=adapters.targets,
        dropout=adapters.dropout,
        seed=settings.seed,
    )
    return adapted, lora.freeze(adapted, freeze)


def _critic(settings: LearnerSettings, programs: Programs) -> Critic:
    """Returns the critic, at a constant rate: its values follow a policy that moves to the end.

    It takes the policy's features where its own tower stands still at the same weights.
    """
    is_shared = settings.critic.trunk == "shared"
    is_same = settings.critic.model in ("", settings.model)
    freeze = () if is_shared else critic_lib.frozen(settings.optim.freeze)
    schedule = optax.constant_schedule(settings.critic.learning_rate)
    return make_critic(
        programs.model,
        make_optimizer(schedule, adamw(settings), freeze),
        settings.critic,
        has_policy_tower=is_shared or (is_same and programs.has_frozen_tower),
        freeze=freeze,
        mesh=programs.mesh,
    )


class Load(NamedTuple):
    """How much is on the devices at the same time, all of them together.

    Attributes:
        shapes: of the largest prompt and completion: one bucket of each kind.
        slots: groups that decode at the same time.
        prefill_groups: prompts of a prefill.
        micro_groups: groups of a microbatch.
        held: prompts whose features a frozen tower's step holds.
    """

    shapes: ShapeTable
    slots: int
    prefill_groups: int
    micro_groups: int
    held: int

    def has_parts(self, settings: LearnerSettings) -> bool:
        """Whether a minibatch is more than one microbatch, where hosts own equally many groups."""
        updates = settings.algorithm.updates_per_rollout
        return math.ceil(settings.rollout.prompts / updates) > self.micro_groups


class Program(NamedTuple):
    """A jitted function with its abstract arguments.

    Attributes:
        name: what it does.
        function: jitted.
        arguments: as ShapeDtypeStructs with shardings, and static ones.
        statics: static keyword arguments.
        beside: what else a device holds meanwhile, in bytes.
        mesh: that it runs on.
    """

    name: str
    function: Callable
    arguments: tuple[Any, ...]
    statics: Mapping[str, Any]
    beside: int
    mesh: jax.sharding.Mesh

    def lower(self) -> jax.stages.Lowered:
        """Returns the program, traced for its arguments."""
        # As in a run: more than one device is told to the models, one is not.
        several = jax.set_mesh(self.mesh) if self.mesh.size > 1 else contextlib.nullcontext()
        with several:
            return cast(Wrapped, self.function).lower(*self.arguments, **self.statics)


class Held(NamedTuple):
    """What is on the devices while completions are drawn, without arrays.

    Attributes:
        state: of the policy.
        critic: state of the critic; None: there is none.
        published: weights to draw with.
        resident: bytes of a device beside these weights: states, and the reference.
    """

    state: TrainState
    critic: TrainState | None
    published: Params
    resident: int


def held_on_devices(settings: LearnerSettings, programs: Programs) -> Held:
    """Returns what a run holds on the devices of a mesh from one step to the next."""
    mesh, drawing, model = programs.mesh, programs.actor_mesh, lora.plain(programs.model)
    assert mesh is not None
    assert drawing is not None
    params = programs.model.abstract_params()
    params = placed(params, programs.model.shardings(mesh))
    base = {name: part for name, part in params.items() if name != "lora"}
    published = jax.eval_shape(functools.partial(sampler_weights.lay_out, model=model), base)
    state, critic_state = _placed_state(params, programs.optimizer, mesh), _critic_state(programs)
    resident = bytes_of(state) + bytes_of(critic_state)
    reference = params.get("lora", params)  # the model under adapters is there once
    resident += bytes_of(reference) if settings.algorithm.kl_coef else 0
    return Held(state, critic_state, placed(published, model.shardings(drawing)), resident)


def list_programs(settings: LearnerSettings, programs: Programs, load: Load) -> list[Program]:
    """Returns the programs of an RL step on a mesh, with the arguments of their largest calls."""
    mesh, drawing, model = programs.mesh, programs.actor_mesh, lora.plain(programs.model)
    assert mesh is not None
    assert drawing is not None
    held = held_on_devices(settings, programs)
    params, published, resident = held.state.params, held.published, held.resident
    rows, drawn = sharding.batch_sharding(mesh), sharding.batch_sharding(drawing)
    prompts = placed(_abstract_prompts(load.prefill_groups, load.shapes, model), drawn)
    batch = placed(_abstract_batch(settings, load, model), rows)
    pixels, result = batch, []
    if programs.has_frozen_tower:
        encode = (model, published, prompts.vision)
        prompts = placed(_with_features(prompts, model), drawn)
        batch = placed(batch._replace(prompts=_with_features(batch.prompts, model)), rows)
        features_of = bytes_of(placed(prompts.vision, sharding.replicated(drawing)))
        of_step = load.held * features_of // load.prefill_groups // drawing.size
        resident += of_step if of_step <= features.DEVICE_BYTES else 0
        result.append(Program("encode", features.encode_prompts, encode, {}, resident, drawing))
    result += _sampler_programs(settings, model, drawing, load, (published, prompts, resident))
    grads = jax.eval_shape(programs.update.zeros, params)
    added = grads if load.has_parts(settings) else None
    beside = resident - bytes_of(params)  # the parameters are an argument
    shown = (params, batch.prompts, batch.completions)
    result += [
        Program("logprobs", programs.scored or programs.logprobs, shown, {}, beside, mesh),
        Program("gradient", programs.update.accumulate, (params, added, batch), {}, beside, mesh),
        Program(
            "optimizer",
            programs.update.apply,
            (held.state, grads),
            {},
            resident - bytes_of(held.state),
            mesh,
        ),
    ]
    if programs.critic is not None:
        critic = programs.critic
        assert held.critic is not None
        shared = params if critic.is_shared else None
        shown = batch if critic.has_policy_tower else pixels
        has_parts = load.has_parts(settings)
        result += _critic_programs(
            programs, held.critic, shared, shown, resident, has_parts=has_parts
        )
    return result


def _sampler_programs(
    settings: LearnerSettings,
    model: Model,
    mesh: jax.sharding.Mesh,
    load: Load,
    arguments: tuple[Params, Prompts, int],
) -> list[Program]:
    """Returns prefill and decode; `arguments` are weights, prompts and the bytes beside them."""
    published, prompts, resident = arguments
    r = settings.rollout
    p, c = load.shapes.prompt_tokens[-1], load.shapes.completion_tokens
    greedy_rows = int(settings.algorithm.advantage == "remax")
    sampling = Sampling(
        temperature=r.temperature, max_tokens=r.max_completion_tokens, greedy_rows=greedy_rows
    )
    draws = make_draws(sampling, model.config.vocab_size)
    draws = placed(draws, sharding.replicated(mesh))
    sizes = (load.slots, r.n + greedy_rows, p, c)
    places = engine.init_slots.lower(model, *sizes, mesh).compile().output_shardings
    slots = placed(jax.eval_shape(lambda: engine.init_slots(model, *sizes, None)), places)
    statics = {"window": r.window_steps, "mode": sampling.mode, "mesh": mesh}
    statics |= {"stop_early": True, "room": c}  # of the windows that read the most
    prefill, decode = (model, published, prompts, None), (model, published, slots, draws)
    return [
        Program("prefill", engine.read_prompts, prefill, {}, resident + bytes_of(slots), mesh),
        Program("decode", engine.decode_window, decode, statics, resident, mesh),
    ]


def _critic_programs(
    programs: Programs,
    state: TrainState,
    shared: Params | None,
    batch: GroupBatch,
    resident: int,
    *,
    has_parts: bool,
) -> list[Program]:
    """Returns values, gradient and optimizer of a critic; `shared` are the policy's parameters."""
    params, critic, mesh = state.params, programs.critic, programs.mesh
    assert critic is not None
    assert mesh is not None
    grads = jax.eval_shape(critic.update.zeros, params)
    beside = resident - bytes_of(params) - bytes_of(shared)
    shown = (params, shared, batch.prompts, batch.completions)
    update, optimizer = (params, grads if has_parts else None, shared, batch), (state, grads)
    return [
        Program("values", critic.values, shown, {}, beside, mesh),
        Program("critic_gradient", critic.update.accumulate, update, {}, beside, mesh),
        Program(
            "critic_optimizer",
            critic.update.apply,
            optimizer,
            {},
            resident - bytes_of(state),
            mesh,
        ),
    ]


def _critic_state(programs: Programs) -> Any:
    """Returns the critic's TrainState without arrays; None without a critic."""
    critic, mesh = programs.critic, programs.mesh
    if critic is None or mesh is None:
        return None
    layout = critic_lib.param_layout(programs.model, mesh, is_shared=critic.is_shared)
    params = critic_lib.abstract_params(programs.model, is_shared=critic.is_shared)
    return _placed_state(placed(params, layout), critic.optimizer, mesh, layout)


def _placed_state(
    params: Params,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    layout: Any = None,
) -> TrainState:
    """Returns a TrainState without arrays."""
    state = jax.eval_shape(functools.partial(init_state, optimizer=optimizer), params)
    return placed(state, train_state_shardings(params, optimizer, mesh, layout))


def _abstract_prompts(groups: int, shapes: ShapeTable, model: Model) -> Prompts:
    """Returns prompts of the largest shape, without arrays."""
    rows = (shapes.vision_rows[-1], shapes.row_patches)
    prompts = empty_prompts(0, shapes.prompt_tokens[-1], rows)
    patches = np.zeros((0, *rows, model.config.vision.patch_values), np.uint8)
    prompts = prompts._replace(vision=prompts.vision._replace(patches=patches))
    return _of_groups(prompts, groups)


def _abstract_batch(settings: LearnerSettings, load: Load, model: Model) -> GroupBatch:
    """Returns a microbatch of the largest shape, without arrays."""
    none = np.zeros((0, settings.rollout.n, load.shapes.completion_tokens), np.float32)
    rollouts = Rollouts(none.astype(np.int32), none, none[..., 0].astype(np.int32), none[..., 0])
    rows = (load.shapes.vision_rows[-1], load.shapes.row_patches)
    prompts = empty_prompts(0, load.shapes.prompt_tokens[-1], rows)
    batch = group_batch(
        prompts,
        rollouts,
        none[..., 0],
        aggregation="token_mean",
        max_tokens=load.shapes.completion_tokens,
    )
    batch = neutral(settings.algorithm, batch)
    whole = _abstract_prompts(load.micro_groups, load.shapes, model)
    return _of_groups(batch, load.micro_groups)._replace(prompts=whole)


def _of_groups(tree: Any, groups: int) -> Any:
    """Returns arrays of no groups as ShapeDtypeStructs of this many."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((groups, *x.shape[1:]), x.dtype), tree)


def _with_features(prompts: Prompts, model: Model) -> Prompts:
    """Returns prompts without arrays as they are after a frozen vision tower."""
    visual = jax.eval_shape(model.encode, model.abstract_params(), prompts.vision)
    return prompts._replace(vision=visual)


def placed(tree: Any, places: Any) -> Any:
    """Returns the tree as ShapeDtypeStructs with shardings: a tree of those, or one for all."""
    if isinstance(places, jax.sharding.Sharding):
        places = jax.tree.map(lambda _: places, tree)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, places
    )


def bytes_of(tree: Any) -> int:
    """Returns the bytes of a placed tree on one device, what lies on its host left out."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
        for x in jax.tree.leaves(tree)
        if x.sharding.memory_kind != "pinned_host"
    )
