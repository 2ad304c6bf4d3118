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
        layers: the layer numbers of a stack; () for all, from 0.
        is_swapped: HF keeps [..., out, in], the parameter is [..., in, out].
        is_either: a file may hold both of these orders; its shape tells, and `is_swapped` where the
            two axes are equally long.
        fused: HF name of the tensor in which some checkpoints keep all experts of a layer.
        part: which part of the fused tensor's rows, counted from 0.
        parts: how many parts an expert has there.
    """

    name: str
    path: str
    is_kernel: bool = False
    shape: tuple[int, ...] = ()
    layers: tuple[int, ...] = ()
    is_swapped: bool = False
    is_either: bool = False
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
        if self.is_swapped:
            return (*shape[:-2], shape[-1], shape[-2])
        return (int(np.prod(shape[1:])), shape[0]) if self.is_kernel else shape

    def fits(self, found: tuple[int, ...], shape: tuple[int, ...]) -> bool:
        """Whether a file's tensor can be the parameter of this shape (of one layer)."""
        return found == self.hf_shape(shape) or (
            self.is_either and found in (shape, (*shape[:-2], shape[-1], shape[-2]))
        )

    def from_hf(self, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The parameter (without the stacks): a view where NumPy can make one."""
        is_swapped = self.is_swapped
        if self.is_either and shape[-1] != shape[-2]:
            is_swapped = tensor.shape != shape
        if is_swapped:
            return tensor.swapaxes(-1, -2)
        return (tensor.reshape(len(tensor), -1).T if self.is_kernel else tensor).reshape(shape)

    def to_hf(self, value: np.ndarray, shape: tuple[int, ...] = ()) -> np.ndarray:
        """The HF tensor of a parameter (without the stacks): a view where NumPy can make one.

        Args:
            value: the parameter.
            shape: of the tensor, where a file may hold either order.
        """
        if self.is_swapped or self.is_either:
            is_swapped = self.is_swapped
            if shape and value.shape[-1] != value.shape[-2]:
                is_swapped = shape != value.shape
            return value.swapaxes(-1, -2) if is_swapped else value
        shape = self.hf_shape(value.shape)
        return (value.reshape(len(value), -1).T if self.is_kernel else value).reshape(shape)
