"""The learner: from a rollout batch to the next weights. It holds no arrays."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evr1.batch.assemble import group_batch
from evr1.batch.cut import Cutter
from evr1.batch.shapes import ShapeTable, groups_per_part
from evr1.config.learner import LearnerSettings
from evr1.exchange import Published, RolloutBatch, publish
from evr1.learner import advantages as advantages_lib
from evr1.learner.programs import Programs, make_programs
from evr1.learner.selection import neutral, with_policy_weights
from evr1.learner.state import LearnerState, next_reference, trained_params
from evr1.learner.update import TrainState, Update, init_state
from evr1.models import Model, lora
from evr1.models.io import peft_read, runs
from evr1.models.nn import context
from evr1.parallel import hosts, sharding
from evr1.rl import diagnostics
from evr1.rl.gae import explained_variance
from evr1.rl.state import AlgorithmState
from evr1.rl.weights import loss_weights
from evr1.types import Count, GroupBatch, Params, no_count


class Prepared(NamedTuple):
    """A rollout batch that is ready for its updates.

    Attributes:
        rollouts: owns the media.
        batch: all groups, with advantages and with the log-probabilities that the loss looks at.
        parts: the microbatches of each minibatch, without media.
        memory: of the algorithm, after this batch.
        version: updates of the policy before this batch.
        kl_ref: mean KL of a token to the reference, where it was taken off the rewards.
    """

    rollouts: RolloutBatch
    batch: GroupBatch
    parts: list[list[GroupBatch]]
    memory: AlgorithmState
    version: int
    kl_ref: float | None


@dataclasses.dataclass(frozen=True)
class Learner:
    """Trains a model.

    Attributes:
        settings: of the algorithm and the optimizers.
        programs: the jitted functions.
        cutter: cuts rollout batches into microbatches.
        count: takes how many microbatches were begun.
    """

    settings: LearnerSettings
    programs: Programs
    cutter: Cutter
    count: Count = no_count

    @property
    def model(self) -> Model:
        """What is trained, with its adapters."""
        return self.programs.model

    @property
    def local_mesh(self) -> jax.sharding.Mesh | None:
        """The devices that draw on this host."""
        return hosts.local_mesh(self.programs.actor_mesh)

    def load(self, directory: str | Path) -> Params:
        """Reads the parameters of a model, each to its place; adapters are new."""
        base, mesh = lora.plain(self.model), self.programs.mesh
        params = runs.load_params(directory, base, shardings=mesh and base.shardings(mesh))
        return self._with_new_adapters(params)

    def load_start(self) -> Params:
        """Reads the policy as it is before the first step, with `lora.adapter` where it is set."""
        s, mesh, base = self.settings, self.programs.mesh, lora.plain(self.model)
        if not s.lora.adapter:
            return self.load(s.model)
        adapter, places = peft_read.read(s.lora.adapter, base), mesh and base.shardings(mesh)
        if s.lora.is_continued:
            return runs.load_params(s.model, base, shardings=places) | {
                "lora": adapter.params(mesh)
            }
        return self._with_new_adapters(
            runs.load_params(s.model, base, shardings=places, adapter=s.lora.adapter)
        )

    def _with_new_adapters(self, params: Params) -> Params:
        mesh, model = self.programs.mesh, self.model
        if not isinstance(model, lora.LoraModel):
            return params
        adapters = model.init_adapters(jax.random.key(self.settings.seed))
        if mesh is not None:
            # From the host: an array put from one device on those of several hosts has no shards.
            adapters = jax.device_put(jax.device_get(adapters), sharding.replicated(mesh))
        return params | {"lora": adapters}

    def init(self) -> LearnerState:
        """Reads the networks as they are before the first step."""
        s, critic = self.settings, self.programs.critic
        params, reference, critic_state = self.load_start(), None, None
        if s.algorithm.kl_coef:
            # The adapter that the run starts from, adapters that change nothing, or a second model.
            at_start = jnp.copy if s.lora.is_continued else jnp.zeros_like
            off = jax.tree.map(at_start, trained_params(s, params)) if s.lora.is_on else None
            reference = off or self.load_start()
        if critic is not None:
            other = s.critic.model not in ("", s.model)
            start = None
            if not critic.is_shared:
                start = self.load(s.critic.model) if other else self.load_start()
            critic_state = critic.init(start)
        policy = init_state(params, self.programs.optimizer, self.programs.mesh)
        memory = AlgorithmState(s.algorithm.kl_coef, entropy_coef=s.algorithm.entropy_coef)
        return LearnerState(0, policy, memory, critic_state, reference)

    def publish(self, state: LearnerState) -> Published:
        """Returns the policy's weights for the sampling side."""
        mesh = self.programs.actor_mesh
        published = publish(self.model, state.policy.params, state.updates, mesh)
        return published._replace(params=hosts.local_view(published.params, self.local_mesh))

    def prepare(
        self, state: LearnerState, rollouts: RolloutBatch
    ) -> tuple[Prepared, dict[str, float]]:
        """Returns the batch with advantages, and metrics, all under the weights before its updates.

        A KL penalty in the reward needs the log-probabilities first. Otherwise the advantages come
        first, so that no pass is spent on groups that move nothing.
        """
        s = self.settings
        outcomes, memory = rollouts.outcomes, state.memory
        batch = self.bare_batch(rollouts, outcomes.valid, state.memory.kl_coef)
        metrics: dict[str, float] = {}
        kl_ref = None
        if self.programs.critic is not None:
            batch = self._with_values(state, rollouts, batch)
        if s.is_kl_in_reward:
            batch, metrics = self._with_logprobs(state, rollouts, batch)
            estimates = advantages_lib.token_kl(s.algorithm.kl_estimator, batch)
            outcomes = outcomes._replace(penalties=memory.kl_coef * estimates)
            kl_ref = float(estimates.sum() / max(batch.completion_mask.sum(), 1))
            metrics["policy/kl_ref"] = kl_ref
        if self.programs.critic is not None:
            batch = advantages_lib.with_gae(s.critic, s.mix, outcomes, batch)
            judged = self._for_critic(batch)
            metrics["critic/explained_variance"] = explained_variance(
                judged.returns, judged.old_values, judged.completion_mask
            )
        else:
            advantages, memory = advantages_lib.estimate(s.algorithm, s.mix, outcomes, memory)
            batch = advantages_lib.with_advantages(batch, advantages)
        if not s.is_kl_in_reward:
            batch, gaps = self._with_logprobs(state, rollouts, batch)
            metrics |= gaps
        if s.algorithm.mask_truncated:
            batch, masked = self._without_truncated(rollouts, batch)
            metrics |= masked
        parts = self.cutter.cut(
            advantages_lib.with_entropy_coef(s.algorithm, batch, state.memory),
            rollouts.owners,
            finish=functools.partial(self._finish, state.updates),
        )
        return Prepared(rollouts, batch, parts, memory, state.updates, kl_ref), metrics

    def update(
        self, state: LearnerState, prepared: Prepared
    ) -> tuple[LearnerState, dict[str, float]]:
        """Returns the state after the updates of a batch, of the critic first, and metrics.

        `state` is given away. An update without a finite gradient is left out, as is one with a
        completion that could not be drawn (see `Rollouts`): `optim/is_finite`, the share of the
        others, is not 1, `optim/skipped` is how many, and the algorithm remembers what it did
        before the batch.
        """
        s, is_warm = self.settings, state.critic is None
        is_warm = is_warm or state.step >= s.critic.warmup_steps
        policy, critic, metrics = self.update_networks(state, prepared, is_warm=is_warm)
        is_finite = metrics["optim/is_finite"] == 1
        memory = prepared.memory if is_finite else state.memory
        state = state._replace(step=state.step + 1, policy=policy, critic=critic, memory=memory)
        kl_ref = metrics.get("policy/kl_ref", prepared.kl_ref)
        if kl_ref is not None:
            metrics["policy/kl_coef"] = state.memory.kl_coef
        if not is_finite:
            return state._replace(reference=next_reference(s, state)), metrics
        if s.algorithm.entropy_controller == "adaptive":
            metrics["policy/entropy_coef"] = advantages_lib.entropy_coef(s.algorithm, state.memory)
            memory = advantages_lib.next_entropy(s.algorithm, state.memory, metrics)
            state = state._replace(memory=memory)
        if kl_ref is not None:
            memory = advantages_lib.next_kl_coef(s, state.memory, kl_ref)
            state = state._replace(memory=memory)
        return state._replace(reference=next_reference(s, state)), metrics

    def update_networks(
        self, state: LearnerState, prepared: Prepared, *, is_warm: bool = True
    ) -> tuple[TrainState, TrainState | None, dict[str, float]]:
        """Returns policy and critic after the updates of a batch, and metrics.

        Args:
            state: see `update`.
            prepared: the batch.
            is_warm: the policy is updated, too.
        """
        policy, critic, metrics = state.policy, state.critic, dict[str, float]()
        if critic is not None:
            critic, metrics = self._update_critic(state, prepared)
        if not is_warm:
            metrics["optim/is_finite"] = metrics["critic/is_finite"]
            return policy, critic, metrics
        parts = prepared.parts * self.settings.algorithm.epochs_per_rollout
        media = self._place_parts(prepared.rollouts, parts, prepared.version)
        zeros = functools.partial(self.zeros, self.programs.update)
        policy, more = _updates(self.programs.update, policy, media, zeros, is_first=critic is None)
        more["optim/is_finite"] *= metrics.get("critic/is_finite", 1)
        return policy, critic, metrics | more

    @property
    def adds_parts(self) -> tuple[bool, ...]:
        """Whether the gradients of a minibatch's parts are added: it may be so and not so.

        Where a whole minibatch has several parts they are always added, though one be left: else
        there would be twice as many programs. Groups that hosts own unequally many of may need
        several parts where one would hold them all.
        """
        shapes = self.cutter.shapes
        if not shapes.parts:
            return False, True
        least = min(self.groups_of_part((p, r)) for p, r, _ in shapes.parts)
        if least < shapes.minibatch_groups:
            return (True,)
        return (False,) if self.cutter.hosts == 1 else (False, True)

    def zeros(self, update: Update, params: Params, count: int) -> Params | None:
        """Returns what the gradients of so many parts of a minibatch are added to; None: there is
        nothing to add to."""
        return update.zeros(params) if count > 1 or False not in self.adds_parts else None

    def groups_of_part(self, size: tuple[int, int]) -> int:
        """Returns how many groups of these prompt and completion tokens a microbatch has."""
        c, n = self.cutter, self.settings.rollout.n
        return groups_per_part(
            np.array(size), n, c.microbatch_tokens, c.shapes.minibatch_groups, c.group_multiple
        )

    def bare_batch(
        self, rollouts: RolloutBatch, valid: np.ndarray | None = None, kl_coef: float = 0.0
    ) -> GroupBatch:
        """Returns the rollouts as a batch whose advantages are all 0.

        Args:
            rollouts: of the step.
            valid: bool[G, N], completions to train on; None: all.
            kl_coef: of the KL term in the loss.
        """
        batch = group_batch(
            rollouts.prompts,
            rollouts.rollouts,
            np.zeros(rollouts.rollouts.lengths.shape, np.float32),
            aggregation=self.settings.algorithm.aggregation,
            max_tokens=self.settings.loss_divisor,
            valid=valid,
        )
        is_offline = rollouts.outcomes.is_offline
        return neutral(self.settings.algorithm, batch)._replace(
            is_offline=batch.is_offline if is_offline is None else is_offline,
            kl_coef=np.full_like(batch.kl_coef, kl_coef),
        )

    def place(self, rollouts: RolloutBatch, part: GroupBatch) -> GroupBatch:
        """Returns a microbatch with its media on the devices."""
        return sharding.put_batch(self.programs.mesh, rollouts.with_media(part))

    def place_shown(self, rollouts: RolloutBatch, part: GroupBatch) -> tuple[Any, Any]:
        """Returns (prompts, completions) of a microbatch with its media on the devices."""
        part = rollouts.with_media(part)
        return sharding.put_batch(self.programs.mesh, (part.prompts, part.completions))

    def _place_parts(
        self, rollouts: RolloutBatch, parts: Sequence[Sequence[GroupBatch]], first: int
    ) -> Iterator[tuple[int, Iterator[GroupBatch]] | None]:
        """Yields how many microbatches each minibatch has, and these, placed; `first` numbers the
        first update.

        None stands for one with completions that could not be drawn.
        """
        begun, total = itertools.count(), sum(map(len, parts))
        for number, minibatch in enumerate(parts, first):
            if not all(np.isfinite(part.behavior_logprobs).all() for part in minibatch):
                yield None
                continue
            numbered = (
                part._replace(update=np.full_like(part.groups, number)) for part in minibatch
            )
            placed = (
                self._counted(self.place(rollouts, part), next(begun), total) for part in numbered
            )
            yield len(minibatch), placed

    def _counted(self, part: GroupBatch, begun: int, total: int) -> GroupBatch:
        self.count(begun, total, "microbatches")
        return part

    def _with_logprobs(
        self, state: LearnerState, rollouts: RolloutBatch, batch: GroupBatch
    ) -> tuple[GroupBatch, dict[str, float]]:
        """Returns the batch with the log-probabilities that are to be computed, and how far the
        sampler's are from them.

        It is cut as for the update: the same shapes round in the same way. Groups that the update
        leaves out keep what they had.
        """
        params, reference = state.policy.params, state.reference_params
        is_recomputed = self.settings.algorithm.old_logprobs == "recompute"
        if not is_recomputed and reference is None:
            return batch, {}
        old, ref = batch.old_logprobs.copy(), batch.ref_logprobs.copy()
        entropy = None if self.programs.scored is None else np.zeros_like(old)
        gaps: list[diagnostics.Sums] = []
        is_complete = self.settings.algorithm.has_batch_statistics
        minibatches = self.cutter.cut(batch, rollouts.owners, is_complete=is_complete)
        total = sum(map(len, minibatches))
        for i, part in enumerate(part for minibatch in minibatches for part in minibatch):
            self.count(i, total, "microbatches")
            hosts.sync_point()
            prompts, completions = self.place_shown(rollouts, part)
            real = part.groups >= 0
            place = (part.groups[real], slice(None), slice(part.completions.shape[2]))
            if is_recomputed:
                if self.programs.scored is None or entropy is None:
                    new = hosts.whole(self.programs.logprobs(params, prompts, completions))
                else:
                    scored = self.programs.scored(params, prompts, completions)
                    new, entropies = hosts.whole(scored)
                    entropy[place] = entropies[real]
                sampled = part.completion_mask & ~part.is_offline[..., None]
                gaps.append(diagnostics.sampler_sums(new, part.behavior_logprobs, sampled))
                old[place] = new[real]
            if reference is not None:
                # Features of the policy's tower serve it too: they are there only if that tower
                # never moves, and the reference started from the policy's weights or follows them.
                new = hosts.whole(self.programs.logprobs(reference, prompts, completions))
                ref[place] = new[real]
        metrics = diagnostics.means(functools.reduce(diagnostics.add, gaps)) if gaps else {}
        mask = batch.completion_mask
        logprobs = {"old_logprobs": np.where(mask, old, 0), "ref_logprobs": np.where(mask, ref, 0)}
        return batch._replace(**logprobs, entropy=entropy), metrics

    def _with_values(
        self, state: LearnerState, rollouts: RolloutBatch, batch: GroupBatch
    ) -> GroupBatch:
        """Returns the batch with the critic's values, under the weights before its updates."""
        critic = self.programs.critic
        assert critic is not None
        assert state.critic is not None
        policy_params = state.policy.params if critic.is_shared else None
        rollouts = rollouts if critic.has_policy_tower else rollouts.without_features()
        values = batch.old_values.copy()
        minibatches = self.cutter.cut(batch, rollouts.owners, is_complete=True)
        for part in (part for minibatch in minibatches for part in minibatch):
            prompts, completions = self.place_shown(rollouts, part)
            real = part.groups >= 0
            place = (part.groups[real], slice(None), slice(part.completions.shape[2]))
            new = critic.values(state.critic.params, policy_params, prompts, completions)
            values[place] = hosts.whole(new)[real]
        return batch._replace(old_values=np.where(batch.completion_mask, values, 0))

    def _for_critic(self, batch: GroupBatch) -> GroupBatch:
        return advantages_lib.for_critic(
            self.settings.mix,
            batch,
            aggregation=self.settings.algorithm.aggregation,
            max_tokens=self.settings.loss_divisor,
        )

    def _without_truncated(
        self, rollouts: RolloutBatch, batch: GroupBatch
    ) -> tuple[GroupBatch, dict[str, float]]:
        """Returns the batch without completions that the limit cut, and their share of the tokens.

        They have been in every statistic of the advantages: how often the limit cuts is part of
        what a group earned.
        """
        mask = batch.completion_mask & rollouts.rollouts.finished[..., None]
        a, tokens = self.settings.algorithm, int(batch.completion_mask.sum())
        weights = loss_weights(mask, a.aggregation, self.settings.loss_divisor)
        share = 1 - int(mask.sum()) / tokens if tokens else 0.0
        batch = batch._replace(completion_mask=mask, loss_weights=weights)
        return batch, {"completion/masked_token_share": share}

    def _finish(self, updates: int, minibatch: GroupBatch) -> GroupBatch:
        """Returns a minibatch with what it says as a whole; drawn alike after a resumed run."""
        number = int(minibatch.groups[0]) if len(minibatch.groups) else 0
        rng = np.random.default_rng([self.settings.seed, updates, number])
        return with_policy_weights(self.settings.algorithm, minibatch, rng)

    def _update_critic(
        self, state: LearnerState, prepared: Prepared
    ) -> tuple[TrainState, dict[str, float]]:
        """Returns the critic after as many updates as the policy has, on all groups; the policy
        must not have moved yet."""
        critic = self.programs.critic
        assert critic is not None
        assert state.critic is not None
        owners = prepared.rollouts.owners
        parts = self.cutter.cut(self._for_critic(prepared.batch), owners, is_complete=True)
        parts = parts * self.settings.algorithm.epochs_per_rollout
        shared = state.policy.params if critic.is_shared else None
        has_tower, rollouts = critic.has_policy_tower, prepared.rollouts
        rollouts = rollouts if has_tower else rollouts.without_features()
        media = self._place_parts(rollouts, parts, int(state.critic.updates))
        zeros = functools.partial(self.zeros, critic.update)
        after, metrics = _updates(critic.update, state.critic, media, zeros, shared)
        return after, {name.replace("optim/", "critic/"): x for name, x in metrics.items()}


def make_learner(
    settings: LearnerSettings, model: Model, mesh: jax.sharding.Mesh | None, shapes: ShapeTable
) -> Learner:
    """Returns the learner of a run; nothing is compiled yet.

    Args:
        settings: of the algorithm and the optimizers.
        model: without adapters.
        mesh: of the devices; None: one device.
        shapes: buckets of the run's batches.

    Raises:
        ValueError: the settings do not fit the model.
    """
    a = settings.algorithm
    for tokens in shapes.prompt_tokens:
        context.check(tokens, settings.rollout.n, 1 if mesh is None else mesh.shape["context"])
    cutter = Cutter(
        shapes=shapes,
        updates=a.updates_per_rollout,
        aggregation=a.aggregation,
        loss_divisor=settings.loss_divisor,
        microbatch_tokens=settings.train.microbatch_tokens,
        group_multiple=sharding.batch_shards(mesh),
        drop_silent=not a.has_other_gradients,
        hosts=hosts.count(),
    )
    return Learner(settings, make_programs(settings, model, mesh), cutter)


def _updates(
    programs: Update,
    state: TrainState,
    minibatches: Iterator[tuple[int, Iterator[GroupBatch]] | None],
    zeros: Callable[[Params, int], Params | None],
    *inputs: Any,
    is_first: bool = True,
) -> tuple[TrainState, dict[str, float]]:
    """Returns the state after an update for each minibatch; gradients of its parts are added.

    There is no update for None, nor where the gradient is not finite: both count as skipped, and
    the metrics are of the others. With `is_first` nothing was given away yet, and until it is, the
    hosts may still leave.
    """
    sums: diagnostics.Sums = {}
    applied: list[dict[str, jax.Array]] = []
    left_out = 0
    for minibatch in minibatches:
        if minibatch is None:
            left_out += 1
            continue
        count, parts = minibatch
        grads = zeros(state.params, count)
        for part in parts:
            if is_first and not applied:
                hosts.sync_point()
            grads, more = programs.accumulate(state.params, grads, *inputs, part)
            sums = diagnostics.add(sums, more) if sums else more
        state, metrics = programs.apply(state, grads)
        applied.append(metrics)
    finite = [m for m in applied if float(m["optim/is_finite"]) == 1]
    names = finite[0] if finite else ()
    means = {name: float(np.mean([float(m[name]) for m in finite])) for name in names}
    skipped = left_out + len(applied) - len(finite)
    if skipped:
        share = len(finite) / (len(finite) + skipped)
        means |= {"optim/is_finite": share, "optim/skipped": float(skipped)}
    return state, diagnostics.means(sums) | means
