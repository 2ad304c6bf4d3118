"""The networks of a run: the policy, and where there are such, a critic and the KL's reference."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evr1.config import Config
from evr1.run import Policy
from evr1.step import TrainState
from evr1.types import Params


class Networks(NamedTuple):
    """What a step trains or compares with.

    Attributes:
        policy: the policy and its optimizer.
        critic: None where the advantages need none.
        reference: the parameters in which it differs from the policy: with adapters, those alone;
            None where there is no KL term.
    """

    policy: TrainState
    critic: TrainState | None = None
    reference: Params | None = None

    @property
    def reference_params(self) -> Params | None:
        """All parameters of the reference; what never moves is the policy's own arrays."""
        return None if self.reference is None else self.policy.params | self.reference

    def saved(self, config: Config) -> dict[str, Any]:
        """What a checkpoint holds; what never moves (a reference, the model under adapters) is not
        in it."""
        state: dict[str, Any] = dict(self.policy._asdict())
        state["params"] = moving(config, self.policy.params)
        if self.critic is not None:
            state["critic"] = self.critic._asdict()
        if is_moving(config):
            state["reference"] = self.reference
        return state

    def restored(self, state: dict[str, Any]) -> "Networks":
        """These networks with what a checkpoint held."""
        names = TrainState._fields
        policy = TrainState(*(state[name] for name in names))
        return Networks(
            policy._replace(params=self.policy.params | policy.params),
            TrainState(*(state["critic"][name] for name in names)) if self.critic else None,
            state.get("reference", self.reference),
        )


def moving(config: Config, params: Params) -> Params:
    """The parameters that a run can change: the adapters alone, where there are some."""
    return {"lora": params["lora"]} if config.lora.rank else params


def is_moving(config: Config) -> bool:
    """Whether the reference of the KL follows the policy."""
    a = config.algorithm
    return a.kl_coef > 0 and (a.reference_decay < 1 or a.reference_refresh_steps > 0)


def init_networks(config: Config, policy: Policy) -> Networks:
    """The networks before the first step."""
    params, reference, critic = policy.load(config.model), None, None
    if config.algorithm.kl_coef:
        off = jax.tree.map(jnp.zeros_like, moving(config, params)) if config.lora.rank else None
        reference = off or policy.load(config.model)
    if policy.critic is not None:
        start = config.critic.model or config.model
        trunk = None if policy.critic.is_shared else policy.load(start)
        critic = policy.critic.init(trunk)
    return Networks(policy.init_state(params), critic, reference)


def next_reference(config: Config, networks: Networks, done: int) -> Networks:
    """The networks after so many steps; a reference that follows the policy has moved.

    The old reference is given away.
    """
    a, reference = config.algorithm, networks.reference
    if not is_moving(config):
        return networks
    params = moving(config, networks.policy.params)
    if a.reference_refresh_steps:
        if done % a.reference_refresh_steps == 0:
            reference = jax.tree.map(jnp.copy, params)
    else:
        reference = _follow(reference, params, a.reference_decay)
    return networks._replace(reference=reference)


@functools.partial(jax.jit, donate_argnums=0)
def _follow(reference: Params, params: Params, decay: jax.Array) -> Params:
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, reference, params)
