"""What a parameter is and how a tensor of a HF checkpoint becomes it, as data."""

from typing import Literal, NamedTuple

import numpy as np

Axes = tuple[str | None, ...]  # of `parallel.sharding.LOGICAL`; missing ones at the end are None
Role = Literal["matrix", "router", "experts", "embedding", "norm", "bias", "other"]


class Weight(NamedTuple):
    """One HF tensor, or one a layer, or one for every expert of every layer.

    Attributes:
        name: HF name; "{}" stands for the layer number, a second one for the expert's.
        path: parameter path, keys joined by "/".
        role: what the parameter does: "matrix" is the kernel of a linear layer, "router" that of
            a mixture of experts, "experts" the kernels of those, "norm" a norm's scale or bias.
        axes: what the axes of the parameter mean, the leading one of layers left out.
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
    role: Role
    axes: Axes = ()
    is_kernel: bool = False
    shape: tuple[int, ...] = ()
    layers: tuple[int, ...] = ()
    is_swapped: bool = False
    is_either: bool = False
    fused: str = ""
    part: int = 0
    parts: int = 1

    @property
    def all_axes(self) -> Axes:
        """`axes`, the leading one of layers included, up to the last that is not None.

        >>> Weight("{}.q.weight", "q/kernel", "matrix", ("embed", "heads")).all_axes
        (None, 'embed', 'heads')
        """
        axes = ((None,) if self.is_stacked else ()) + self.axes
        while axes and axes[-1] is None:
            axes = axes[:-1]
        return axes

    @property
    def is_stacked(self) -> bool:
        """One HF tensor a layer, at least."""
        return self.stacks > 0

    @property
    def stacks(self) -> int:
        """Leading axes of the parameter that HF keeps as separate tensors."""
        return self.name.count("{}")

    def hf_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the HF shape for a parameter shape (without the stacks)."""
        if self.shape:
            return self.shape
        if self.is_swapped:
            return (*shape[:-2], shape[-1], shape[-2])
        return (int(np.prod(shape[1:])), shape[0]) if self.is_kernel else shape

    def fits(self, stored: tuple[int, ...], shape: tuple[int, ...]) -> bool:
        """Returns whether a file's tensor can be the parameter of this shape (of one layer)."""
        return stored == self.hf_shape(shape) or (
            self.is_either and stored in (shape, (*shape[:-2], shape[-1], shape[-2]))
        )

    def from_hf(self, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the parameter (without the stacks): a view where NumPy can make one."""
        is_swapped = self.is_swapped
        if self.is_either and shape[-1] != shape[-2]:
            is_swapped = tensor.shape != shape
        if is_swapped:
            return tensor.swapaxes(-1, -2)
        return (tensor.reshape(len(tensor), -1).T if self.is_kernel else tensor).reshape(shape)

    def to_hf(self, value: np.ndarray, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Returns a parameter's HF tensor (without the stacks): a view where NumPy can make one.

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


def linear(
    hf: str, path: str, fan_in: str | None, fan_out: str | None, *, role: Role = "matrix"
) -> tuple[Weight, Weight]:
    """Returns kernel and bias of a linear layer.

    Args:
        hf: its HF name.
        path: its path.
        fan_in: axis of the kernel's inputs.
        fan_out: axis of its outputs; a bias as wide as the model is whole on every device.
        role: of the kernel.
    """
    bias = () if fan_out == "embed" else (fan_out,)
    return (
        Weight(hf + ".weight", path + "/kernel", role, (fan_in, fan_out), is_kernel=True),
        Weight(hf + ".bias", path + "/bias", "bias", bias),
    )


def norm(hf: str, path: str) -> tuple[Weight, Weight]:
    """Returns weight and bias of a norm."""
    return (
        Weight(hf + ".weight", path + "/scale", "norm"),
        Weight(hf + ".bias", path + "/bias", "norm"),
    )
