"""Settings of the algorithm and of what it learns from. `base.py` says what each means."""

import dataclasses

from evr1.config import algorithms, checks
from evr1.config.checks import Section, require


@dataclasses.dataclass(frozen=True)
class AlgorithmSettings(Section):
    """`config.algorithm`: advantage, policy loss, KL, correction, updates of a rollout batch."""

    advantage: str
    passk: int
    discount: float
    ema_decay: float
    mask_truncated: bool
    temporal_bonus: float
    temporal_margin: float
    temporal_rollouts: int
    policy: str
    clip_low: float
    clip_high: float
    clip_dual: float
    sapo_temperature_positive: float
    sapo_temperature_negative: float
    aggregation: str
    aggregation_divisor: float
    entropy_share: float
    covariance: str
    covariance_share: float
    covariance_low: float
    covariance_high: float
    covariance_coef: float
    off_policy_bound: float
    kl_coef: float
    kl_estimator: str
    kl_gradient: str
    kl_placement: str
    kl_controller: str
    kl_target: float
    kl_horizon: float
    entropy_coef: float
    entropy_controller: str
    entropy_target: float
    entropy_step: float
    balance_coef: float
    correction: str
    correction_low: float
    correction_high: float
    correction_floor: float
    correction_normalized: bool
    rejection: str
    rejection_low: float
    rejection_high: float
    veto: float
    reference_decay: float
    reference_refresh_steps: int
    updates_per_rollout: int
    epochs_per_rollout: int
    old_logprobs: str

    @property
    def total_updates_per_rollout(self) -> int:
        """Optimizer updates of a rollout batch."""
        return self.updates_per_rollout * self.epochs_per_rollout

    @property
    def has_policy_weights(self) -> bool:
        """Whether a minibatch as a whole says how much its tokens count in the policy loss."""
        return self.entropy_share < 1 or self.covariance == "clip" or self.correction_normalized

    @property
    def has_batch_statistics(self) -> bool:
        """Whether the log-probabilities of all groups are needed, with or without signal."""
        return self.has_policy_weights or self.covariance == "kl"

    @property
    def has_other_gradients(self) -> bool:
        """Whether a token of advantage 0 may have a gradient."""
        has_entropy = self.entropy_coef > 0 or self.entropy_controller == "adaptive"
        return has_entropy or self.kl_coef > 0 or self.balance_coef > 0 or self.covariance == "kl"

    def check(self) -> None:
        checks.choice("algorithm.advantage", self.advantage, algorithms.ADVANTAGES)
        checks.choice("algorithm.old_logprobs", self.old_logprobs, algorithms.OLD_LOGPROBS)
        checks.share("algorithm.ema_decay", self.ema_decay)
        checks.at_least_0("algorithm", self, ("temporal_bonus", "temporal_rollouts"))
        checks.positive("algorithm", self, ("temporal_margin", "epochs_per_rollout"))
        updates = self.total_updates_per_rollout
        require(
            self.old_logprobs != "on_policy" or updates == 1,
            "algorithm.old_logprobs",
            f"is on_policy with {updates} updates of a rollout batch "
            "(algorithm.updates_per_rollout * algorithm.epochs_per_rollout)",
            "use recompute: after the first update the policy is no longer the one that sampled",
        )
        self._check_kl()
        self._check_reference()
        self._check_loss()
        self._check_correction()
        self._check_rejection()
        self._check_selection()
        self._check_entropy()

    def _check_kl(self) -> None:
        checks.choice("algorithm.kl_estimator", self.kl_estimator, algorithms.KL_ESTIMATORS)
        checks.choice("algorithm.kl_placement", self.kl_placement, algorithms.KL_PLACEMENTS)
        checks.choice("algorithm.kl_controller", self.kl_controller, algorithms.KL_CONTROLLERS)
        checks.choice("algorithm.kl_gradient", self.kl_gradient, algorithms.KL_GRADIENTS)
        require(
            self.kl_gradient == "own" or (self.kl_coef > 0 and self.kl_placement == "loss"),
            "algorithm.kl_gradient",
            f"is {self.kl_gradient} with algorithm.kl_coef={self.kl_coef} and "
            f"algorithm.kl_placement={self.kl_placement}",
            "leave it out: only a KL term in the loss has a gradient",
        )
        checks.at_least_0("algorithm", self, ("kl_coef",))
        require(
            self.kl_coef > 0 or self.kl_controller == "fixed",
            "algorithm.kl_coef",
            f"is {self.kl_coef} with algorithm.kl_controller={self.kl_controller}",
            "give what it starts from",
        )
        is_penalty = self.kl_coef > 0 and self.kl_placement == "reward"
        require(
            not (is_penalty and self.advantage in algorithms.WITHOUT_PENALTY),
            "algorithm.kl_placement",
            f"is reward with algorithm.advantage={self.advantage}, which no penalty can be taken "
            "off from",
            "use loss",
        )
        checks.positive("algorithm", self, ("kl_target", "kl_horizon"))

    def _check_reference(self) -> None:
        require(
            0 <= self.reference_decay <= 1,
            "algorithm.reference_decay",
            f"is {self.reference_decay}",
            "need 0 to 1 (the reference stays as it is)",
        )
        checks.at_least_0("algorithm", self, ("reference_refresh_steps",))
        is_moving = self.reference_decay < 1 or self.reference_refresh_steps > 0
        require(
            self.kl_coef > 0 or not is_moving,
            "algorithm.kl_coef",
            f"is {self.kl_coef} with a reference that moves (algorithm.reference_decay, "
            "algorithm.reference_refresh_steps)",
            "give a KL term, or leave the reference alone",
        )
        require(
            self.reference_decay == 1 or self.reference_refresh_steps == 0,
            "algorithm.reference_refresh_steps",
            f"is {self.reference_refresh_steps} with "
            f"algorithm.reference_decay={self.reference_decay}",
            "use one of them",
        )

    def _check_loss(self) -> None:
        checks.choice("algorithm.policy", self.policy, tuple(algorithms.POLICIES))
        policy = algorithms.POLICIES[self.policy]
        for name, default in (
            ("clip_low", policy.clip_low),
            ("clip_high", policy.clip_high),
            ("clip_dual", policy.clip_dual),
        ):
            value = getattr(self, name)
            require(
                value is None or default is not None,
                f"algorithm.{name}",
                f"is {value}, but algorithm.policy={self.policy} does not look at it",
                "leave it out",
            )
        low, high, dual = self.clip_low or 0, self.clip_high or 0, self.clip_dual or 0
        require(0 <= low < 1, "algorithm.clip_low", f"is {low}", "need 0 (off) or more, below 1")
        require(high >= 0, "algorithm.clip_high", f"is {high}", "need 0 (off) or more")
        is_bound = dual == 0 or dual > 1
        require(is_bound, "algorithm.clip_dual", f"is {dual}", "need 0 (off) or over 1")
        if self.aggregation is not None:
            checks.choice("algorithm.aggregation", self.aggregation, algorithms.AGGREGATIONS)
        aggregation = self.aggregation or policy.aggregation
        divisor = self.aggregation_divisor
        require(
            divisor == 0 or aggregation not in algorithms.WITHOUT_DIVISOR,
            "algorithm.aggregation_divisor",
            f"is {divisor}, but algorithm.aggregation={aggregation} does not look at it",
            "leave it out",
        )
        require(
            divisor == 0 or divisor >= 1,
            "algorithm.aggregation_divisor",
            f"is {divisor}",
            "need 0 (its default), or 1 or more",
        )
        gates = ("sapo_temperature_positive", "sapo_temperature_negative")
        checks.positive("algorithm", self, gates)
        checks.at_least_0("algorithm", self, ("entropy_coef", "balance_coef"))

    def _check_correction(self) -> None:
        if self.correction:
            checks.choice("algorithm.correction", self.correction, tuple(algorithms.CORRECTIONS))
        require(
            not self.correction or self.old_logprobs != "sampler",
            "algorithm.correction",
            f"is {self.correction} with algorithm.old_logprobs=sampler",
            "use one of them: the ratio to the sampler holds the correction already",
        )
        bounds = algorithms.bounds(self.correction)
        for name, value, default in (
            ("low", self.correction_low, bounds.low),
            ("high", self.correction_high, bounds.high),
        ):
            require(
                value is None or default is not None,
                f"algorithm.correction_{name}",
                f"is {value}, but algorithm.correction={self.correction!r} does not look at it",
                "leave it out",
            )
        low = bounds.low if self.correction_low is None else self.correction_low
        high = bounds.high if self.correction_high is None else self.correction_high
        require(low is None or low > 0, "algorithm.correction_low", f"is {low}", "need more than 0")
        require(
            high is None or high > (low or 0),
            "algorithm.correction_high",
            f"is {high}",
            "need more than algorithm.correction_low" if low else "need more than 0",
        )
        if self.correction not in algorithms.TRUNCATED:
            _require_1_inside("algorithm.correction", low or 0, high or 0)

    def _check_rejection(self) -> None:
        if self.rejection:
            checks.choice("algorithm.rejection", self.rejection, tuple(algorithms.REJECTIONS))
        checks.at_least_0("algorithm", self, ("correction_floor", "veto"))
        bounds = algorithms.rejection_bounds(self.rejection)
        for name in ("low", "high"):
            value = getattr(self, f"rejection_{name}")
            require(
                value is None or self.rejection,
                f"algorithm.rejection_{name}",
                f"is {value}, but algorithm.rejection is empty",
                "choose a rejection, or leave it out",
            )
        low = (bounds.low if self.rejection_low is None else self.rejection_low) or 0
        high = (bounds.high if self.rejection_high is None else self.rejection_high) or 0
        require(low >= 0, "algorithm.rejection_low", f"is {low}", "need 0 (off) or more")
        require(
            high == 0 or high > low,
            "algorithm.rejection_high",
            f"is {high}",
            "need 0 (off) or more than algorithm.rejection_low",
        )
        require(
            not self.rejection or low or high,
            "algorithm.rejection",
            f"is {self.rejection} with no bound",
            "give algorithm.rejection_low or algorithm.rejection_high, or leave it out",
        )
        _require_1_inside("algorithm.rejection", low, high)
        require(self.veto < 1, "algorithm.veto", f"is {self.veto}", "need 0 (off), or less than 1")
        high = algorithms.bounds(self.correction).high
        high = high if self.correction_high is None else self.correction_high
        require(
            self.correction_floor == 0 or self.correction in algorithms.TRUNCATED,
            "algorithm.correction_floor",
            f"is {self.correction_floor} with algorithm.correction={self.correction!r}",
            f"only {', '.join(algorithms.TRUNCATED)} have one: leave it out",
        )
        require(
            self.correction_floor == 0 or self.correction_floor < (high or 0),
            "algorithm.correction_floor",
            f"is {self.correction_floor}",
            "need less than algorithm.correction_high",
        )
        require(
            not (self.rejection or self.veto) or self.old_logprobs != "sampler",
            "algorithm.rejection" if self.rejection else "algorithm.veto",
            f"is {self.rejection or self.veto} with algorithm.old_logprobs=sampler",
            "use recompute: there the old policy is the sampler, and nothing differs",
        )
        require(
            not self.correction_normalized or self.correction,
            "algorithm.correction_normalized",
            "is True, but algorithm.correction is empty",
            "choose a correction, or leave it out",
        )

    def _check_selection(self) -> None:
        """What a minibatch says as a whole is known before its update."""
        share = self.entropy_share
        is_share = 0 < share <= 1
        require(is_share, "algorithm.entropy_share", f"is {share}", "need more than 0, up to 1")
        if self.covariance:
            checks.choice("algorithm.covariance", self.covariance, algorithms.COVARIANCES)
        share = self.covariance_share
        is_share = 0 < share <= 1
        require(is_share, "algorithm.covariance_share", f"is {share}", "need more than 0, up to 1")
        require(
            self.covariance_low < self.covariance_high,
            "algorithm.covariance_low",
            f"is {self.covariance_low}",
            "need less than algorithm.covariance_high",
        )
        checks.positive("algorithm", self, ("covariance_coef",))
        checks.at_least_0("algorithm", self, ("off_policy_bound",))
        old, fix = self.old_logprobs, "use recompute: this is worked out before the update"
        is_recomputed = old in ("recompute", "auto")
        for name, value, allowed in (
            ("entropy_share", self.entropy_share, self.entropy_share == 1 or is_recomputed),
            ("covariance", self.covariance, not self.covariance or old != "on_policy"),
            (
                "correction_normalized",
                self.correction_normalized,
                not self.correction_normalized or is_recomputed,
            ),
        ):
            got = f"is {old} with algorithm.{name}={value}"
            require(allowed, "algorithm.old_logprobs", got, fix)

    def _check_entropy(self) -> None:
        checks.choice(
            "algorithm.entropy_controller", self.entropy_controller, algorithms.ENTROPY_CONTROLLERS
        )
        checks.positive("algorithm", self, ("entropy_target", "entropy_step"))
        require(
            0 < self.discount <= 1,
            "algorithm.discount",
            f"is {self.discount}",
            "need more than 0, up to 1",
        )
        require(
            self.discount == 1 or self.advantage == "reinforce_plus_plus",
            "algorithm.discount",
            f"is {self.discount} with algorithm.advantage={self.advantage}",
            "only reinforce_plus_plus looks at it (gae has critic.discount): leave it out",
        )
        require(
            self.passk == 0 or self.advantage == "grpo_passk",
            "algorithm.passk",
            f"is {self.passk} with algorithm.advantage={self.advantage}",
            "only grpo_passk looks at it: leave it out",
        )


def _require_1_inside(name: str, low: float, high: float) -> None:
    """Requires bounds that keep what sampler and trainer agree on; 0: no such bound."""
    got = "which leaves out what the sampler and the trainer agree on"
    require(low <= 1, f"{name}_low", f"is {low}, {got}", "need at most 1")
    require(high == 0 or high >= 1, f"{name}_high", f"is {high}, {got}", "need at least 1")


@dataclasses.dataclass(frozen=True)
class CriticSettings(Section):
    """`config.critic`: the values of algorithm.advantage=gae."""

    trunk: str
    model: str
    learning_rate: float
    warmup_steps: int
    clip: float
    discount: float
    decay: float

    def check(self) -> None:
        checks.choice("critic.trunk", self.trunk, ("own", "shared"))
        self._require_model(self.trunk == "own")
        checks.positive("critic", self, ("learning_rate",))
        checks.at_least_0("critic", self, ("warmup_steps", "clip"))
        checks.from_0_to_1("critic.discount", self.discount)
        checks.from_0_to_1("critic.decay", self.decay)

    def check_paths(self) -> None:
        self._require_model(checks.is_model(self.model))

    def _require_model(self, ok: bool) -> None:
        require(
            ok or not self.model,
            "critic.model",
            f"is {self.model} with critic.trunk={self.trunk}",
            "give a model directory or a run's checkpoint for an own trunk, or leave it out",
        )


@dataclasses.dataclass(frozen=True)
class DynamicSettings(Section):
    """`config.dynamic`: drawing until the batch is full of groups with signal."""

    enabled: bool
    min_spread: float
    draw_prompts: int
    max_rounds: int

    def check(self) -> None:
        checks.at_least_0("dynamic", self, ("min_spread", "draw_prompts"))
        checks.positive("dynamic", self, ("max_rounds",))
        require(
            self.enabled or not (self.draw_prompts or self.min_spread),
            "dynamic.enabled",
            "is False while dynamic.draw_prompts or dynamic.min_spread is set",
            "set it to True, or leave them out",
        )


@dataclasses.dataclass(frozen=True)
class MixSettings(Section):
    """`config.mix`: offline trajectories of the rows."""

    enabled: bool
    accuracy_threshold: float | None
    overlong: str
    per_group: int
    treatment: str
    luffy_gamma: float
    importance_clip: float
    sft_coef: float

    def check(self) -> None:
        checks.choice("mix.treatment", self.treatment, algorithms.OFFLINE_LOSSES)
        checks.choice("mix.overlong", self.overlong, ("refuse", "truncate"))
        names = ("per_group", "luffy_gamma", "importance_clip", "sft_coef")
        checks.positive("mix", self, names)
        if self.accuracy_threshold is not None:
            checks.from_0_to_1("mix.accuracy_threshold", self.accuracy_threshold)


@dataclasses.dataclass(frozen=True)
class ReplaySettings(Section):
    """`config.replay`: the policy's own best completions of earlier steps."""

    enabled: bool
    size: int
    per_prompt: int
    min_accuracy: float

    def check(self) -> None:
        checks.positive("replay", self, ("size", "per_prompt"))
        checks.from_0_to_1("replay.min_accuracy", self.min_accuracy)
