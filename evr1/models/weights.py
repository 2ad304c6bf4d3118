"""How a tensor of a HF checkpoint becomes a parameter, as data."""

from typing import NamedTuple

import numpy as np


class Weight(NamedTuple):
    """One HF tensor, or one a layer, or one for every expert of every layer.

    Attributes:
        name: HF name; "{}" stands for the layer number, a second one for the expert's.
        path: parameter path, keys joined by "/".
        is_kernel: HF keeps [out, in...], the parameter is [in, out...]; otherwise the shapes are
            equal.
        shape: HF shape where it does not follow from the parameter's; () otherwise.
        first: HF's number of the first layer of the stack.
        every: HF's layers from one of the stack to the next.
        fused: HF name of the tensor in which some checkpoints keep all experts of a layer.
        part: which part of the fused tensor's rows, counted from 0.
        parts: how many parts an expert has there.
    """

    name: str
    path: str
    is_kernel: bool = False
    shape: tuple[int, ...] = ()
    first: int = 0
    every: int = 1
    fused: str = ""
    part: int = 0
    parts: int = 1

    @property
    def is_stacked(self) -> bool:
        """One HF tensor a layer, at least."""
        return self.stacks > 0

    @property
    def stacks(self) -> int:
        """Leading axes of the parameter that HF keeps as separate tensors."""
        return self.name.count("{}")

    def hf_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The HF shape for a parameter shape (without the stacks)."""
        if self.shape:
            return self.shape
        return (int(np.prod(shape[1:])), shape[0]) if self.is_kernel else shape

    def from_hf(self, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The parameter (without the stacks): a view where NumPy can make one."""
        return (tensor.reshape(len(tensor), -1).T if self.is_kernel else tensor).reshape(shape)

    def to_hf(self, value: np.ndarray) -> np.ndarray:
        """The HF tensor of a parameter (without the stacks)."""
        shape = self.hf_shape(value.shape)
        return (value.reshape(len(value), -1).T if self.is_kernel else value).reshape(shape)
