"""Who sees whom in attention: packed rows, and groups of completions beside their prompt."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int


class Rule(NamedTuple):
    """The part of a layout that does not depend on data.

    With `completion` > 0 the tokens are [prompt | completion 0 | completion 1 | ...], and a query
    sees a key only where the key is a prompt token or of the query's own completion.

    With `devices` > 1 the tokens stand in the order of that many devices, see `order`; places are
    those of the plain order all the same.
    """

    causal: bool
    prompt: int = 0  # tokens
    completion: int = 0  # tokens of one completion; 0: plain sequence
    devices: int = 1  # that share the tokens

    def sees(self, q: Any, k: Any) -> Any:
        """Returns whether query place q sees key place k, elementwise for NumPy or JAX integers.

        >>> rule = Rule(causal=True, prompt=2, completion=2)  # [p p | a a | b b]
        >>> [int(rule.sees(np.int32(5), np.int32(k))) for k in range(6)]
        [1, 1, 0, 0, 1, 1]
        """
        seen = (q >= k) if self.causal else (q == q) & (k == k)
        if not self.completion:
            return seen
        key = self.part(k)
        return seen & ((key == 0) | (self.part(q) == key))

    def part(self, place: Any) -> Any:
        """Returns what a place belongs to: 0 is the prompt (or all), i is completion i - 1.

        >>> Rule(causal=True, prompt=2, completion=2).part(np.arange(6)).tolist()
        [0, 0, 1, 1, 2, 2]
        """
        if not self.completion:
            return 0 * place
        return (place >= self.prompt) * ((place - self.prompt) // self.completion + 1)


class Layout(NamedTuple):
    """Query q sees key k where the rule says so and their ids are equal.

    Every token must see itself, so padding has an id of its own (0) and sees padding.
    """

    rule: Rule
    ids: Int[Array, "b t"]


def segments(ids: Int[Array, "b t"], *, causal: bool) -> Layout:
    """Returns the layout of packed rows.

    A token sees its own segment, all of it or what stands before it.
    """
    return Layout(Rule(causal), ids)


def group(
    lengths: Int[Array, " b"], prompt: int, completions: int, completion: int, devices: int = 1
) -> Layout:
    """Returns the layout of a group.

    Prompts of `lengths` tokens are padded to `prompt`; completions of `completion` tokens follow.
    """
    tokens = prompt + completions * completion
    place = jnp.arange(tokens) if devices == 1 else jnp.asarray(order(prompt, tokens, devices))
    place = place[None]
    real = (place < lengths[:, None]) | (place >= prompt)
    rule = Rule(True, prompt, completion if completions else 0, devices)
    return Layout(rule, real.astype(jnp.int32))


def order(prompt: int, tokens: int, devices: int) -> np.ndarray:
    """Returns int[T]: the plain place of every token as several devices share a group.

    One after the other has [two pieces of the prompt | its completions], the i-th piece and the
    i-th from the end: so each of them has as many keys to see as any other.

    Args:
        prompt: tokens, two pieces a device.
        tokens: those of completions included, a whole number of these a device.
        devices: that share the group.

    A prompt of 8 tokens and two completions of 2 on two devices:

    >>> order(8, 12, 2).tolist()
    [0, 1, 6, 7, 8, 9, 2, 3, 4, 5, 10, 11]
    """
    pieces = np.arange(prompt).reshape(2 * devices, -1)
    own = np.arange(prompt, tokens).reshape(devices, -1)
    last = len(pieces) - 1
    return np.concatenate([[*pieces[i], *pieces[last - i], *own[i]] for i in range(devices)])


def read(x: Array, lengths: Int[Array, " b"], prompt: int) -> Array:
    """Returns [last token of the prompt | completion 0 | ...] of a group's tokens [B, T, ...].

    Nobody reads the states of the prompt's other tokens after the last layer.
    """
    last = jax.vmap(lambda own, i: own[i - 1])(x, lengths)
    return jnp.concatenate([last[:, None], x[:, prompt:]], axis=1)


def query_ids(layout: Layout, queries: int) -> Int[Array, "b q"]:
    """Returns the ids of the queries. Where these are fewer than the tokens, they are what `read`
    leaves, in the last places: the first is the prompt's last token, in the place of its padding.
    """
    ids = layout.ids
    if queries == ids.shape[1]:
        return ids
    return ids[:, -queries:].at[:, 0].set(1)


def mask(layout: Layout, queries: int | None = None) -> Bool[Array, "b q k"]:
    """Returns which key each query sees: the definition, for small T; see `query_ids`."""
    rule, place = layout.rule, np.arange(layout.ids.shape[1])
    queries = len(place) if queries is None else queries
    if rule.devices > 1:
        place = order(rule.prompt, len(place), rule.devices)
    static = layout.rule.sees(place[-queries:, None], place[None])
    ids = query_ids(layout, queries)
    return jnp.asarray(static)[None] & (ids[:, :, None] == layout.ids[:, None, :])
