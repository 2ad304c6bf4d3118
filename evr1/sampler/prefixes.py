"""Prompts that were prefilled, kept on the device by what they hold, for whoever asks again."""

import collections
from typing import Any, NamedTuple

import jax


class Kept(NamedTuple):
    """A prefilled prompt, or g = 1 of them."""

    kv: Any  # keys and values, [L, g, P, K, A] each
    lengths: jax.Array  # int32[g], tokens
    next_positions: jax.Array  # int32[g]

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return sum(x.nbytes for x in jax.tree.leaves(self))


class Prefixes:
    """The prompts that were used last, as many as fit into the bytes; for one thread.

    Attributes:
        limit: bytes.
        nbytes: of what is kept now.
        hits: times that a prompt was found.
        misses: times that it was not.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.nbytes = self.hits = self.misses = 0
        self._kept: collections.OrderedDict[bytes, Kept] = collections.OrderedDict()

    def __contains__(self, key: bytes) -> bool:
        return key in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> Kept | None:
        """Returns a prompt, which is then the last to go."""
        found = self._kept.get(key)
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        self._kept.move_to_end(key)
        return found

    def put(self, key: bytes, prompt: Kept) -> None:
        """Keeps a prompt, and drops the ones that were not used for longest; one that alone is
        over the limit is not kept."""
        if prompt.nbytes > self.limit or key in self._kept:
            return
        self._kept[key] = prompt
        self.nbytes += prompt.nbytes
        while self.nbytes > self.limit:
            _, dropped = self._kept.popitem(last=False)
            self.nbytes -= dropped.nbytes

    def clear(self) -> None:
        """Drops all: other weights give other keys and values."""
        self._kept.clear()
        self.nbytes = 0
