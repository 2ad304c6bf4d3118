"""The sections of a config that an update depends on, in one record."""

import dataclasses

from evr1.config.settings import (
    AlgorithmSettings,
    CriticSettings,
    LoraSettings,
    MixSettings,
    OptimSettings,
    RolloutSettings,
    Settings,
    TrainSettings,
)


@dataclasses.dataclass(frozen=True)
class LearnerSettings:
    """What the learner is made of.

    Attributes:
        model: directory that the policy starts from.
        seed: of adapters and dropout.
        num_steps: RL steps of the run.
        replay: groups may hold replayed completions.
    """

    model: str
    seed: int
    num_steps: int
    rollout: RolloutSettings
    algorithm: AlgorithmSettings
    critic: CriticSettings
    mix: MixSettings
    replay: bool
    optim: OptimSettings
    lora: LoraSettings
    train: TrainSettings

    @property
    def loss_divisor(self) -> float:
        """What aggregations that do not count tokens divide the loss by."""
        a = self.algorithm
        if a.aggregation_divisor:
            return a.aggregation_divisor
        return self.rollout.max_completion_tokens if a.aggregation == "fixed_length" else 1

    @property
    def has_critic(self) -> bool:
        """Whether the advantages need a critic."""
        return self.algorithm.advantage == "gae"

    @property
    def has_offline(self) -> bool:
        """Whether groups may hold completions that the policy did not just draw."""
        return self.mix.enabled or self.replay

    @property
    def is_kl_in_reward(self) -> bool:
        """Whether a KL penalty is taken off the rewards."""
        return self.algorithm.kl_coef > 0 and self.algorithm.kl_placement == "reward"

    @property
    def is_reference_moving(self) -> bool:
        """Whether the reference of the KL follows the policy."""
        a = self.algorithm
        return a.kl_coef > 0 and (a.reference_decay < 1 or a.reference_refresh_steps > 0)

    @property
    def total_updates(self) -> int:
        """Updates of the policy in the whole run."""
        a = self.algorithm
        alone = self.critic.warmup_steps if self.has_critic else 0  # steps of the critic
        return (self.num_steps - alone) * a.updates_per_rollout * a.epochs_per_rollout


def learner_settings(settings: Settings) -> LearnerSettings:
    """Returns what of a run's settings the learner is made of."""
    return LearnerSettings(
        model=settings.model,
        seed=settings.seed,
        num_steps=settings.num_steps,
        rollout=settings.rollout,
        algorithm=settings.algorithm,
        critic=settings.critic,
        mix=settings.mix,
        replay=settings.replay.enabled,
        optim=settings.optim,
        lora=settings.lora,
        train=settings.train,
    )


def held_prompts(settings: Settings) -> int:
    """Returns how many prompts have their features at the same time, with a frozen tower."""
    prompts = settings.rollout.prompts
    if not settings.dynamic.enabled:
        return settings.rollout.groups
    return 2 * prompts + max(prompts, settings.dynamic.draw_prompts)  # kept, without signal, new


def drawn_groups(settings: Settings) -> int:
    """Returns how many groups are drawn at a time, at most: those of a step, but for rounds."""
    prompts, dynamic = settings.rollout.prompts, settings.dynamic
    size = dynamic.draw_prompts or prompts
    return -(-prompts // size) * size if dynamic.enabled else settings.rollout.groups
