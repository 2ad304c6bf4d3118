"""What training changes: the policy, a critic, the KL's reference, what the algorithm remembers."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evr1.config.learner import LearnerSettings
from evr1.learner.update import TrainState
from evr1.rl.state import AlgorithmState
from evr1.types import Params


class LearnerState(NamedTuple):
    """All that a learner carries from one step to the next.

    Attributes:
        step: RL steps done.
        policy: the policy and its optimizer.
        memory: plain numbers of the algorithm.
        critic: None where the advantages need none.
        reference: the parameters in which the reference differs from the policy: with adapters,
            those alone; None where there is no KL term.
    """

    step: int
    policy: TrainState
    memory: AlgorithmState
    critic: TrainState | None = None
    reference: Params | None = None

    @property
    def reference_params(self) -> Params | None:
        """All parameters of the reference; what never moves is the policy's own arrays."""
        return None if self.reference is None else self.policy.params | self.reference

    @property
    def updates(self) -> int:
        """Optimizer updates of the policy; waits for the last one."""
        return int(self.policy.updates)


def saved_arrays(settings: LearnerSettings, state: LearnerState) -> dict[str, Any]:
    """Returns the arrays that a checkpoint holds.

    What never moves (a reference, the model under adapters) is not among them.
    """
    arrays: dict[str, Any] = dict(state.policy._asdict())
    arrays["params"] = trained_params(settings, state.policy.params)
    if state.critic is not None:
        arrays["critic"] = state.critic._asdict()
    if settings.is_reference_moving:
        arrays["reference"] = state.reference
    return arrays


def restored(state: LearnerState, step: int, arrays: dict[str, Any]) -> LearnerState:
    """Returns the state with what a checkpoint held.

    Args:
        state: of the start of the run.
        step: RL steps done.
        arrays: what `saved_arrays` returned.
    """
    names = TrainState._fields
    policy = TrainState(*(arrays[name] for name in names))
    return state._replace(
        step=step,
        policy=policy._replace(params=state.policy.params | policy.params),
        critic=TrainState(*(arrays["critic"][name] for name in names)) if state.critic else None,
        reference=arrays.get("reference", state.reference),
    )


def trained_params(settings: LearnerSettings, params: Params) -> Params:
    """Returns the parameters that a run can change: the adapters alone, where there are some."""
    return {"lora": params["lora"]} if settings.lora.is_on else params


def next_reference(settings: LearnerSettings, state: LearnerState) -> Params | None:
    """Returns the reference after `state.step` steps; one that follows the policy has moved.

    The old reference is given away.
    """
    a, reference = settings.algorithm, state.reference
    if not settings.is_reference_moving:
        return reference
    params = trained_params(settings, state.policy.params)
    if not a.reference_refresh_steps:
        return follow(reference, params, a.reference_decay)
    is_due = state.step % a.reference_refresh_steps == 0
    return jax.tree.map(jnp.copy, params) if is_due else reference


@functools.partial(jax.jit, donate_argnums=0)
def follow(reference: Params, params: Params, decay: float | jax.Array) -> Params:
    """Returns decay * reference + (1 - decay) * params."""
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, reference, params)
