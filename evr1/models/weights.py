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
        layers: the layer numbers of a stack; () for all, from 0.
        is_swapped: HF keeps [..., out, in], the parameter is [..., in, out].
        is_either: a file may hold both of these orders; its shape tells, and `is_swapped` where the
            two axes are equally long.
    """

    name: str
    path: str
    is_kernel: bool = False
    shape: tuple[int, ...] = ()
    layers: tuple[int, ...] = ()
    is_swapped: bool = False
    is_either: bool = False

    @property
    def is_stacked(self) -> bool:
        """One HF tensor a layer."""
        return "{}" in self.name

    def hf_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The HF shape for a parameter shape (of one layer)."""
        if self.shape:
            return self.shape
        if self.is_swapped:
            return (*shape[:-2], shape[-1], shape[-2])
        return (int(np.prod(shape[1:])), shape[0]) if self.is_kernel else shape

    def fits(self, found: tuple[int, ...], shape: tuple[int, ...]) -> bool:
        """Whether a file's tensor can be the parameter of this shape (of one layer)."""
        return found == self.hf_shape(shape) or (
            self.is_either and found in (shape, (*shape[:-2], shape[-1], shape[-2]))
        )

    def from_hf(self, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The parameter (of one layer): a view where NumPy can make one."""
        is_swapped = self.is_swapped
        if self.is_either and shape[-1] != shape[-2]:
            is_swapped = tensor.shape != shape
        if is_swapped:
            return tensor.swapaxes(-1, -2)
        return (tensor.reshape(len(tensor), -1).T if self.is_kernel else tensor).reshape(shape)

    def to_hf(self, value: np.ndarray) -> np.ndarray:
        """The HF tensor of a parameter (of one layer)."""
        if self.is_swapped:
            return np.ascontiguousarray(value.swapaxes(-1, -2))
        shape = self.hf_shape(value.shape)
        return (value.reshape(len(value), -1).T if self.is_kernel else value).reshape(shape)
