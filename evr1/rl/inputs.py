"""The input of a loss: its settings, and the arrays that it may look at."""

import dataclasses
from typing import NamedTuple

import jax


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The loss of an update. Most fields bear the names of `config.algorithm`.

    Attributes:
        policy: a key of `POLICY_LOSSES`.
        clip_low: the ratio is clipped below at 1 - clip_low; 0: not clipped below.
        clip_high: and above at 1 + clip_high; 0: not clipped above.
        clip_dual: bound on the loss of a token with advantage -1; 0: none.
        sapo_temperature_positive: of `sapo`, where the advantage is above 0.
        sapo_temperature_negative: of `sapo`, elsewhere.
        has_kl: the KL to the reference is part of the loss, with the coefficient of the batch.
        kl_estimator: a key of `rl.kl.ESTIMATORS`.
        kl_gradient: a key of `rl.kl.GRADIENTS`.
        entropy_coef: weight of the entropy, which the loss rewards; 0: no gradient through it.
        entropy_controller: adaptive: the weight is data of the batch, `TokenInputs.entropy_coef`.
        balance_coef: weight of the experts' load-balancing loss; 0: off.
        correction: a key of `rl.correction.CORRECTIONS`; empty: none.
        correction_low: lower bound of the correction.
        correction_high: its upper bound.
        correction_floor: weights below it are raised to it; 0: none.
        rejection: a key of `rl.correction.REJECTIONS`; empty: none.
        rejection_low: lower bound of the rejection; 0: none.
        rejection_high: its upper bound; 0: none.
        veto: completions with a token whose probability fell to less than this share; 0: off.
        off_policy_bound: a completion of negative advantage has no policy loss where the mean of
            log(behavior / policy) over its tokens is over it; 0: off.
        temperature: what the logits are divided by, as when sampling.
        on_policy: for one update per rollout batch: the policy itself is the old one, which saves
            the forward pass that would compute `old_logprobs`. The ratio is 1 and its gradient
            that of the log-probability.
        has_offline: batches may hold offline completions: report on them apart.
        offline: `config.mix.treatment`, a key of `rl.offline.OFFLINE_LOSSES`.
        offline_clip: bound on the ratio of `importance`.
        luffy_gamma: of `luffy`.
    """

    policy: str = "ppo"
    clip_low: float = 0.2
    clip_high: float = 0.28
    clip_dual: float = 3.0
    sapo_temperature_positive: float = 1.0
    sapo_temperature_negative: float = 1.05
    has_kl: bool = False
    kl_estimator: str = "k3"
    kl_gradient: str = "own"
    entropy_coef: float = 0.0
    entropy_controller: str = "fixed"
    balance_coef: float = 0.0
    correction: str = ""
    correction_low: float = 0.5
    correction_high: float = 2.0
    correction_floor: float = 0.0
    rejection: str = ""
    rejection_low: float = 0.0
    rejection_high: float = 0.0
    veto: float = 0.0
    off_policy_bound: float = 0.0
    temperature: float = 1.0
    on_policy: bool = False
    has_offline: bool = False
    offline: str = "on_policy"
    offline_clip: float = 1.0
    luffy_gamma: float = 0.1

    @property
    def has_correction(self) -> bool:
        """Whether the policy loss has weights made of sampler against trainer."""
        return bool(self.correction or self.rejection or self.veto)

    @property
    def has_entropy(self) -> bool:
        """Whether the loss rewards entropy, so that its gradient is needed."""
        return self.entropy_coef > 0 or self.entropy_controller == "adaptive"


class TokenInputs(NamedTuple):
    """The arrays a loss may look at. A completion is a row along the last axis, never split."""

    logprobs: jax.Array  # float32[G, N, R], of the policy that is trained
    entropy: jax.Array  # float32[G, N, R], of its distributions
    old_logprobs: jax.Array  # float32[G, N, R]
    behavior_logprobs: jax.Array  # float32[G, N, R]
    ref_logprobs: jax.Array  # float32[G, N, R]
    advantages: jax.Array  # float32[G, N, R]
    mask: jax.Array  # bool[G, N, R], trained tokens
    is_offline: jax.Array  # bool[G, N, 1], completions that the policy did not sample
    kl_coef: jax.Array  # float32[G, 1, 1]
    # What was worked out from the whole minibatch; None: not looked at.
    policy_weights: jax.Array | None = None  # float32[G, N, R], factors on the policy loss
    kl_old_coef: jax.Array | None = None  # float32[G, N, R], of |log r|, which is added to it
    entropy_coef: jax.Array | None = None  # float32[G, 1, 1], of the adaptive controller
