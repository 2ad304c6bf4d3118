"""How a tensor of a HF checkpoint becomes a parameter, as data."""

from typing import NamedTuple

import numpy as np


class Weight(NamedTuple):
    """One HF tensor, or one a layer.

    Attributes:
        name: HF name; "{}" stands for the layer number.
        path: parameter path, keys joined by "/".
        is_kernel: HF keeps [out, in...], the parameter is [in, out...]; otherwise the shapes are
            equal.
        shape: HF shape where it does not follow from the parameter's; () otherwise.
        first: HF's number of the first layer of the stack.
        every: HF's layers from one of the stack to the next.
    """

    name: str
    path: str
    is_kernel: bool = False
    shape: tuple[int, ...] = ()
    first: int = 0
    every: int = 1

    @property
    def is_stacked(self) -> bool:
        """One HF tensor a layer."""
        return "{}" in self.name

    def hf_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The HF shape for a parameter shape (of one layer)."""
        if self.shape:
            return self.shape
        return (int(np.prod(shape[1:])), shape[0]) if self.is_kernel else shape

    def from_hf(self, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The parameter (of one layer): a view where NumPy can make one."""
        return (tensor.reshape(len(tensor), -1).T if self.is_kernel else tensor).reshape(shape)

    def to_hf(self, value: np.ndarray) -> np.ndarray:
        """The HF tensor of a parameter (of one layer)."""
        shape = self.hf_shape(value.shape)
        return (value.reshape(len(value), -1).T if self.is_kernel else value).reshape(shape)
