"""What a run is made of: the data and the policy. The loop takes both for granted."""

import collections
import contextlib
import dataclasses
import fcntl
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import optax

from evr1 import optim, problems, rewards, step
from evr1.config import Config
from evr1.critic import Critic, frozen, make_critic
from evr1.data import batch, demo, media, positions, rows
from evr1.data.decode import DecodePool, Quarantine
from evr1.data.errors import MediaError
from evr1.data.loader import Loader
from evr1.data.order import Source
from evr1.data.preprocess import preprocess, progress_bar
from evr1.data.processor import Processor
from evr1.data.records import Budgets, Example, Geometry, Row
from evr1.features import Encoder, make_encoder, with_vision
from evr1.models import Model, hf, lora
from evr1.parallel import mesh as mesh_lib
from evr1.parallel import sharding
from evr1.rewards import extra
from evr1.rl.losses import LossConfig
from evr1.sampler.driver import Sampler
from evr1.sampler.sampling import Sampling
from evr1.types import GroupBatch, Params, Prompts, ShapeTable

MAX_BUCKETS = 4  # shapes of each kind that are derived where the config gives none


@dataclasses.dataclass(frozen=True)
class Data:
    """Rows, their media, and how they become batches.

    Attributes:
        train: endless; yields `rollout.prompts` examples at a time.
        heldout: a new loader of the held-out rows, once through, in file order.
        pos_grid: side of the model's learned position table.
    """

    processor: Processor
    source: media.MediaSource
    shapes: ShapeTable
    pos_grid: int
    train: Loader
    heldout: Callable[[], Loader]
    train_rows: Sequence[Row]
    heldout_rows: Sequence[Row]

    def collate(self, examples: Sequence[Example]) -> Prompts:
        """The examples as one record of host arrays, without their patches."""
        return batch.collate(
            examples,
            self.shapes,
            self.processor.geometry,
            self.pos_grid,
            self.processor.pad_id,
            has_patches=False,
        )

    def example(self, source: str) -> Example:
        """The example of a training row, by its file and line.

        Raises:
            ValueError: there is no such row, or its media cannot be used any more.
        """
        index = next((i for i, r in enumerate(self.train_rows) if r.source == source), None)
        example = None if index is None else self.train.load(index)
        if example is None:
            raise ValueError(
                f"{source}: a checkpoint holds completions of this row, which is gone or whose "
                "media cannot be used; restore them, or choose a new config.workdir"
            )
        return example

    def frames(self, split: str, problem_id: str) -> list[np.ndarray]:
        """The sampled frames (uint8[H, W, 3]) of a row's media; none where they cannot be used."""
        every_row = self.heldout_rows if split == "eval" else self.train_rows
        row = next((r for r in every_row if r.problem_id == problem_id), None)
        if row is None:
            return []
        try:
            loaded = [self.source.load(request) for request in media.requests(row)]
        except MediaError:
            return []
        return [frame for medium in loaded for frame in medium.frames]


@dataclasses.dataclass(frozen=True)
class Policy:
    """The model, where it lies, and the compiled parts that sample from it and train it.

    With adapters, samplers take the base model's parameters, `merged`; all else takes the model's.
    """

    model: Model
    mesh: jax.sharding.Mesh | None  # None: one device
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule  # optimizer update -> learning rate
    update: step.Update
    logprobs: Callable
    sampler: Sampler
    sampling: Sampling
    greedy_sampler: Sampler
    greedy: Sampling
    temporal_sampler: Sampler | None = None  # of the videos with shuffled frames
    critic: Critic | None = None
    encoder: Encoder | None = None  # where the vision tower is frozen

    @property
    def group_multiple(self) -> int:
        """Over how many devices the groups of a batch are spread."""
        return 1 if self.mesh is None else self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    def load(self, directory: str | Path) -> Params:
        """The parameters of a HF or Orbax directory, each read straight to its place; adapters are
        new."""
        adapted = self.model if isinstance(self.model, lora.LoraModel) else None
        model = adapted.base if adapted else self.model
        places = None
        if self.mesh is not None:
            places = sharding.param_shardings(self.mesh, model.abstract_params())
        params = hf.load_params(directory, model, shardings=places)
        if adapted is None:
            return params
        adapters = adapted.init_adapters(jax.random.key(self.sampling.seed))
        if self.mesh is not None:
            adapters = jax.device_put(adapters, sharding.replicated(self.mesh))
        return params | {"lora": adapters}

    def merged(self, params: Params) -> Params:
        """The parameters as the samplers take them; made anew where there are adapters."""
        return lora.merged(self.model, params)

    def place(self, tree):
        """Host arrays on the devices, groups spread over them."""
        if self.mesh is None:
            return jax.device_put(tree)
        return jax.device_put(tree, sharding.batch_sharding(self.mesh))

    def place_prompts(self, part: GroupBatch, examples: Sequence[Example]):
        """(prompts, completions) of a microbatch on the devices."""
        part = self.with_vision(part, examples)
        return self.place((part.prompts, part.completions))

    def with_vision(self, part: GroupBatch, examples: Sequence[Example]) -> GroupBatch:
        """A microbatch with the pixels or features of its prompts, from the examples of its rollout
        batch.

        One at a time: the pixels of a whole rollout batch are tens of gigabytes.
        """
        mine = [examples[g] if g >= 0 else None for g in part.groups.tolist()]
        merge = self.model.config.vision.merge
        return part._replace(prompts=with_vision(part.prompts, mine, merge))

    def encode(self, params: Params, examples: Sequence[Example]) -> list[Example]:
        """The examples with their features, where the vision tower is frozen."""
        return list(examples) if self.encoder is None else self.encoder(params, examples)

    def init_state(self, params: Params) -> step.TrainState:
        """The state before the first update. `params` are given away."""
        return step.init_state(params, self.optimizer, self.mesh)


@contextlib.contextmanager
def sole_run(workdir: str | Path) -> Iterator[None]:
    """Holds the workdir, so that a second run cannot write into it; the kernel lets go of it when
    the process ends, however it ends.

    Raises:
        ValueError: another run holds it.
    """
    if jax.process_index() > 0:
        yield
        return
    path = Path(workdir)
    path.mkdir(parents=True, exist_ok=True)
    with (path / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{workdir}: another run is writing there; wait for its end, or choose another "
                "config.workdir"
            ) from None
        yield


def open_data(
    config: Config,
    model: Model,
    stack: contextlib.ExitStack,
    line: Callable[[str], None] = print,
) -> Data:
    """Reads the rows and plans them; where the config says so, makes and preprocesses them first.

    Args:
        config: resolved.
        model: that the data are for.
        stack: closes the loader and the decoding processes.
        line: prints a line.

    Raises:
        ValueError: bad rows, media or budgets.
    """
    d = config.data
    if d.generate:
        line(f"the demo's clips and rows: {config.workdir}/data")
        demo.prepare(config.workdir, config.seed)
    processor = Processor.from_hf(
        str(hf.side_dir(config.model)), d.template, d.thinking, config.rewards.box_scale
    )
    scorers = extra.all_scorers(config.rewards.extra)
    types = problems.Types(scorers, config.rewards.unknown_type)
    train_rows, sources = load_train_rows(d, types.canonical)
    heldout_rows = rows.load_rows(d.eval, canonical=types.canonical) if d.eval else []
    heldout_rows = heldout_rows[: config.eval.prompts or None]
    if types.counts:
        line(types.told())
    _check_scorable([*train_rows, *heldout_rows], scorers, config.rewards.box_scale)
    if d.preprocess:
        with progress_bar() as show:
            summary = preprocess(
                [*train_rows, *heldout_rows],
                d.shards,
                budgets=budgets(config),
                geometry=processor.geometry,
                media_dir=d.media_dir,
                workers=d.workers,
                timeout_s=d.decode_timeout_s,
                on_progress=show,
            )
        line(f"shards: {summary.line()}")
    quarantine = Quarantine(Path(config.workdir) / "quarantine.jsonl")
    pool = stack.enter_context(DecodePool(d.workers, d.decode_timeout_s, quarantine=quarantine))
    source = media.MediaSource(
        budgets=budgets(config),
        geometry=processor.geometry,
        pool=pool,
        media_dir=d.media_dir,
        shards=d.shards,
        mode=d.source,
    )
    limits = {
        "max_prompt_tokens": d.max_prompt_tokens,
        "overlong": "drop" if d.filter_overlong else "refuse",
        "max_failed_share": d.max_failed_share,
        "threads": d.workers,
    }
    groups = config.dynamic.draw_prompts or config.rollout.prompts
    train = stack.enter_context(
        Loader(
            train_rows,
            processor,
            source,
            groups=groups,
            seed=config.seed,
            shuffle=d.shuffle,
            curriculum=d.curriculum,
            sources=sources,
            prefetch_batches=d.prefetch_batches * math.ceil(config.rollout.prompts / groups),
            **limits,
        )
    )

    def heldout() -> Loader:
        groups = min(config.rollout.slots * config.rollout.n, max(len(heldout_rows), 1))
        return Loader(
            heldout_rows, processor, source, groups=groups, shuffle=False, epochs=1, **limits
        )

    if d.shards and d.source != "realtime_only":
        every = {r for row in (*train_rows, *heldout_rows) for r in media.requests(row)}
        found = source.count_cached(every)
        line(f"shards: {found} of {len(every)} media are there with these budgets")
        if found < len(every):
            line(
                "  the others are decoded at every use: run tools/preprocess_videos.py on all data "
                "files with the budgets of this config, or set data.preprocess"
            )
    lengths = [train.lengths]
    if heldout_rows:
        with heldout() as loader:
            lengths.append(loader.lengths)
    shapes = plan_shapes(
        config,
        [*train_rows, *heldout_rows],
        np.concatenate(lengths),
        source,
        processor.geometry,
    )
    side = math.isqrt(model.config.vision.table)
    return Data(processor, source, shapes, side, train, heldout, train_rows, heldout_rows)


def load_train_rows(
    d: Config, canonical: Callable[[object], str]
) -> tuple[list[Row], list[Source]]:
    """The rows of `data.train`, or of all of `data.sources` in order, and how many each has.

    A problem_id that more than one source has gets the name of its file in front; where two files
    have the same name, their paths.
    """
    if not d.sources:
        return rows.load_rows(d.train, canonical=canonical), []
    files = [rows.load_rows(path, canonical=canonical) for path, _ in d.sources]
    seen = collections.Counter(i for file in files for i in {row.problem_id for row in file})
    named = []
    paths = [path for path, _ in d.sources]
    stems = [Path(path).stem for path in paths]
    prefixes = stems if len(set(stems)) == len(stems) else paths
    for prefix, file in zip(prefixes, files, strict=True):
        for row in file:
            is_shared = seen[row.problem_id] > 1
            name = f"{prefix}/{row.problem_id}" if is_shared else row.problem_id
            named.append(dataclasses.replace(row, problem_id=name))
    sizes = [Source(len(file), w) for (_, w), file in zip(d.sources, files, strict=True)]
    return named, sizes


def adapted(config: Config, model: Model) -> tuple[Model, tuple[str, ...]]:
    """The model that is trained, with the config's adapters, and the patterns of what is frozen."""
    freeze = tuple(config.optim.freeze)
    if not config.lora.rank:
        return model, freeze
    fields = {name: config.lora[name] for name in ("rank", "alpha", "targets", "dropout")}
    model = lora.adapt(model, seed=config.seed, **fields)
    return model, lora.freeze(model, freeze)


def open_policy(config: Config, model: Model, data: Data) -> Policy:
    """Makes the jitted functions of the run; nothing is compiled yet.

    Raises:
        ValueError: the mesh does not fit the devices, or a batch does not divide over it.
    """
    r, o, a = config.rollout, config.optim, config.algorithm
    model, freeze = adapted(config, model)
    if a.balance_coef and not model.config.experts_per_token:
        raise ValueError(
            f"algorithm.balance_coef={a.balance_coef}: {config.model} has no experts; set it to 0"
        )
    mesh = mesh_lib.make_mesh(**config.mesh)
    mesh = mesh if mesh.size > 1 else None
    alone = config.critic.warmup_steps if a.advantage == "gae" else 0  # steps of the critic
    updates = (config.num_steps - alone) * a.updates_per_rollout * a.epochs_per_rollout
    schedule = optim.make_schedule(
        o.schedule,
        o.learning_rate,
        updates,
        warmup_updates=o.warmup_steps,
        min_learning_rate=o.min_learning_rate,
    )
    optimizer = make_optimizer(config, schedule, freeze)
    sampling = Sampling(
        temperature=r.temperature,
        top_p=r.top_p,
        top_k=r.top_k,
        max_tokens=r.max_completion_tokens,
        end_ids=data.processor.end_ids,
        banned_ids=data.processor.banned_ids,
        seed=config.seed,
        greedy_rows=int(a.advantage == "remax"),
    )
    common = {
        "shapes": data.shapes,
        "geometry": data.processor.geometry,
        "pos_grid": data.pos_grid,
        "window": r.window_steps,
        "pad_id": data.processor.pad_id,
        "mesh": mesh,
    }
    drawn = lora.plain(model)
    sampler = Sampler(drawn, n=r.n + sampling.greedy_rows, slots=r.slots, **common)
    return Policy(
        model=model,
        mesh=mesh,
        optimizer=optimizer,
        schedule=schedule,
        update=step.make_update(model, optimizer, loss_config(config), freeze=freeze, mesh=mesh),
        logprobs=step.make_logprobs(model, temperature=r.temperature, mesh=mesh),
        sampler=sampler,
        sampling=sampling,
        greedy_sampler=Sampler(drawn, n=1, slots=r.slots * r.n, **common),
        greedy=dataclasses.replace(
            sampling,
            temperature=0.0,
            max_tokens=config.eval.max_completion_tokens,
            greedy_rows=0,
        ),
        temporal_sampler=Sampler(drawn, n=a.temporal_rollouts, slots=r.slots, **common)
        if a.temporal_bonus
        else None,
        critic=_critic(config, model, mesh) if a.advantage == "gae" else None,
        encoder=_encoder(config, drawn, sampler) if has_frozen_tower(model, freeze) else None,
    )


def has_frozen_tower(model: Model, freeze: Sequence[str]) -> bool:
    """Whether neither the vision tower nor an adapter in it is trained."""
    params = model.abstract_params()
    return optim.is_frozen(params, freeze, "vision") and "vision" not in params.get("lora", {})


def _encoder(config: Config, model: Model, sampler: Sampler) -> Encoder:
    """The policy's frozen tower, on the prompts as the sampler prefills them."""
    shapes = sampler.shapes
    return make_encoder(
        model,
        sampler.prompts,
        groups=sampler.prefill_groups,
        held=held_features(config),
        patches=shapes.vision_rows[-1] * shapes.row_patches,
        mesh=sampler.mesh,
    )


def held_features(config: Config) -> int:
    """Of how many prompts a frozen tower's features are there at the same time."""
    prompts = config.rollout.prompts
    if not config.dynamic.enabled:
        return prompts
    return 2 * prompts + max(prompts, config.dynamic.draw_prompts)  # kept, without signal, new


def make_optimizer(
    config: Config, schedule: optax.Schedule, freeze: Sequence[str]
) -> optax.GradientTransformation:
    """The optimizer that `config.optim` describes, with this schedule."""
    o = config.optim
    return optim.make_optimizer(
        schedule,
        b1=o.b1,
        b2=o.b2,
        eps=o.eps,
        weight_decay=o.weight_decay,
        max_grad_norm=o.max_grad_norm,
        freeze=freeze,
    )


def _critic(config: Config, model: Model, mesh: jax.sharding.Mesh | None) -> Critic:
    """At a constant learning rate: the values follow a policy that moves to the end.

    It takes the policy's features where its own tower stands still at the same weights.
    """
    is_shared = config.critic.trunk == "shared"
    is_same = config.critic.model in ("", config.model)
    is_still = has_frozen_tower(model, config.optim.freeze)
    schedule = optax.constant_schedule(config.critic.learning_rate)
    freeze = () if is_shared else frozen(config.optim.freeze)
    optimizer = make_optimizer(config, schedule, freeze)
    return make_critic(
        model,
        optimizer,
        clip=config.critic.clip,
        is_shared=is_shared,
        has_policy_tower=is_shared or (is_same and is_still),
        freeze=freeze,
        mesh=mesh,
    )


def loss_config(config: Config) -> LossConfig:
    """The loss that a resolved config describes."""
    a, mix = config.algorithm, config.mix
    derived = {
        "has_offline": mix.enabled or config.replay.enabled,
        "offline": mix.treatment,
        "offline_clip": mix.importance_clip,
        "luffy_gamma": mix.luffy_gamma,
        "has_kl": a.kl_coef > 0 and a.kl_placement == "loss",
        "temperature": config.rollout.temperature,
        "on_policy": a.old_logprobs == "on_policy",
    }
    names = [field.name for field in dataclasses.fields(LossConfig)]
    return LossConfig(**{n: a[n] for n in names if n not in derived}, **derived)


def budgets(config: Config) -> Budgets:
    """How much of a medium is looked at."""
    names = [field.name for field in dataclasses.fields(Budgets)]
    return Budgets(**{name: config.data[name] for name in names})


def plan_shapes(
    config: Config,
    every_row: Sequence[Row],
    lengths: np.ndarray,
    source: media.MediaSource,
    geometry: Geometry,
) -> ShapeTable:
    """The shapes that batches will have: those of the config, and where it gives none, derived.

    Args:
        config: resolved.
        every_row: training and held-out rows.
        lengths: int[rows], prompt tokens; rows that are not used are below 0 or over the limit.
        source: tells the sizes of media without decoding any.
        geometry: how pixels become patches.
    """
    limit = config.data.max_prompt_tokens
    used = np.flatnonzero((lengths >= 0) & (lengths <= limit)).tolist()
    grids = [_grid(every_row[i], source) for i in used]
    frames = [int(positions.units(grid).prod(axis=1).max()) for grid in grids if len(grid)]
    whole = geometry.merge_size**2
    row_patches = config.shapes.row_patches or max(frames, default=whole)
    prompt_rows = [batch.vision_rows(grid, row_patches) for grid in grids]
    table = ShapeTable(
        prompt_tokens=tuple(config.shapes.prompt_tokens)
        or _buckets(lengths[used], 128 if limit > 1024 else 32),
        vision_rows=tuple(config.shapes.vision_rows) or _buckets(np.array(prompt_rows), 1),
        row_patches=row_patches,
        completion_tokens=max(
            config.rollout.max_completion_tokens, config.eval.max_completion_tokens
        ),
    )
    table.prompt_bucket(int(lengths[used].max()))  # what does not fit is told now, not at its turn
    table.vision_bucket(max(prompt_rows))
    if row_patches % whole:
        raise ValueError(
            f"shapes.row_patches={row_patches} is not a multiple of merge_size**2={whole}; round "
            "it up"
        )
    return table


def _check_scorable(
    every_row: Sequence[Row], scorers: Mapping[str, rewards.Scorer], box_scale: str
) -> None:
    for row in every_row:
        try:
            rewards.check_row(row, scorers, box_scale)
        except ValueError as e:
            raise ValueError(f"{row.source}: {e}") from e


def _grid(row: Row, source: media.MediaSource) -> np.ndarray:
    try:
        sizes = [source.size(request).grid_thw for request in media.requests(row)]
    except MediaError:
        sizes = []
    return np.array(sizes, np.int64).reshape(-1, 3)


def _buckets(sizes: np.ndarray, multiple: int) -> tuple[int, ...]:
    """Up to MAX_BUCKETS sizes, multiples of `multiple`, evenly spaced, that hold all of `sizes`.

    >>> _buckets(np.array([90, 300, 470]), 32)
    (128, 256, 384, 480)
    """
    low, high = int(sizes.min(initial=sizes.max(initial=0))), int(sizes.max(initial=0))
    steps = np.linspace(0, high, MAX_BUCKETS + 1)[1:]
    rounded = {-(-math.ceil(s) // multiple) * multiple for s in steps}
    first = min(b for b in rounded if b >= low)
    return tuple(sorted(b for b in rounded if b >= first))
