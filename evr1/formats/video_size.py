"""How many pixels a video may have by the processor files of a HF directory.

Source: transformers 5.24, video_processing_utils (`get_video_processor_dict`),
Qwen2VLVideoProcessor and Qwen3VLVideoProcessor.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evr1.formats import processor_files

BUDGETS = ("qwen_vl_utils", "hf", "hf_capped")
_FRAME_FAMILIES = ("qwen2_vl", "qwen2_5_vl")


class VideoSize(NamedTuple):
    """What transformers' video processor is told.

    Attributes:
        shortest_edge: least pixels, of all frames together or of a frame; 0: the file has none.
        longest_edge: most pixels.
        max_tokens: of the cap: of a frame, or of a video.
        is_volume: the edges count frames x height x width, as in Qwen3-VL; else a frame's pixels.
        is_capped: the directory asks for the cap.
    """

    shortest_edge: int
    longest_edge: int
    max_tokens: int
    is_volume: bool
    is_capped: bool = False

    def capped(self, n_frames: int, factor: int, temporal: int) -> int:
        """Returns the most pixels of a frame under the cap.

        Args:
            n_frames: of the video.
            factor: pixels on a side of a visual token.
            temporal: frames in a patch.
        """
        floor = int(self.shortest_edge * 1.05)
        if self.is_volume:
            return max(min(self.max_tokens * factor**2, self.longest_edge // n_frames), floor)
        total = int(self.max_tokens * factor * factor * 0.9)
        return max(min(self.longest_edge, total * temporal // n_frames), floor)


def read(root: Path) -> VideoSize:
    """Returns what the processor files of a HF directory say, or transformers' defaults.

    Raises:
        ValueError: a file is no JSON object.
    """
    source = _source(root)
    kind = str(source.get("video_processor_type") or "")
    family = processor_files.read_json(root / "config.json").get("model_type")
    is_volume = "Qwen2" not in kind if kind else family not in _FRAME_FAMILIES
    defaults = (128 * 32**2, 768 * 32**2) if is_volume else (128 * 28**2, 768 * 28**2)
    size = source.get("size")
    given = dict(size) if isinstance(size, Mapping) else {}
    edges = [
        given.get("shortest_edge", 0 if given else defaults[0]),
        given.get("longest_edge", 0 if given else defaults[1]),
    ]
    for i, name in enumerate(("min_pixels", "max_pixels")):
        if not is_volume and source.get(name) is not None:
            edges[i] = source[name]  # of older directories; they go before `size`
    shortest, longest = (x if type(x) is int and x > 0 else 0 for x in edges)
    tokens = source.get("max_video_tokens")
    if type(tokens) is not int or tokens < 1:
        tokens = 768 if is_volume else 128000
    is_capped = source.get("cap_pixels_per_frame") is True
    return VideoSize(shortest, longest, tokens, is_volume, is_capped)


def _source(root: Path) -> Mapping[str, Any]:
    """Returns the settings that transformers reads: the first file of three that is there."""
    nested = processor_files.read_json(root / "processor_config.json").get("video_processor")
    if isinstance(nested, Mapping):
        return nested
    for name in ("video_preprocessor_config.json", "preprocessor_config.json"):
        if (root / name).is_file():
            return processor_files.read_json(root / name)
    return {}
