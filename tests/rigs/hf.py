"""torch for parity tests, in a state in which the vision modules of transformers import."""

import functools
from types import ModuleType

import pytest


def load_torch() -> ModuleType:
    """torch; the test is skipped where it is not installed."""
    torch = pytest.importorskip("torch")
    _declare_missing_ops(torch)
    return torch


@functools.cache
def _declare_missing_ops(torch: ModuleType) -> None:
    # torchvision has no build for CPU-only torch: its Python half imports once its operators exist.
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError:
        global _library
        _library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
