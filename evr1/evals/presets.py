"""Frame presets by name: how much of a video is shown, and how completions are drawn.

Kits show very different shares of one video, which moves a score by more than ten points; so the
preset is a part of every result. The presets of a task's name are those of benchmarks that no
general one suits. Sources of each are in docs/benchmarks.md.
"""

import dataclasses
import difflib

from evr1.data.records import Budgets

_TOKEN = 32 * 32  # pixels of a visual token of Qwen3-VL; two frames share their tokens
_FRAMES_OF_A_TOKEN = 2
_FRAME_TOKENS = 768  # what its processor gives two frames at most
_THOUSAND_TOKENS = 1024 * _TOKEN


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How completions are drawn where a result is to be compared with published ones.

    Attributes:
        temperature: 0: greedy.
        top_p: share of probability that tokens are drawn from.
        top_k: number of the likeliest tokens; 0: all.
        presence_penalty: taken off the logits of tokens that were drawn before. Ours is always 0.
        max_tokens: limit of a completion.
        seed: of the draws; None: none is stated.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    presence_penalty: float = 0.0
    max_tokens: int = 4096
    seed: int | None = None


@dataclasses.dataclass(frozen=True)
class Preset:
    """What of a video, and of images beside it, is shown.

    Attributes:
        name: what it is asked for by.
        about: whose it is, in a few words.
        fps: frames a second, until there are max_frames; then they are spread evenly.
        max_frames: at most so many of a video.
        max_pixels: of a frame.
        total_pixels: two frames count as one, as they share their tokens.
        min_pixels: of a frame. A high one exceeds total_pixels where there are many frames.
        image_min_pixels: of an image.
        image_max_pixels: of an image.
        sampling: see Sampling; greedy where nobody states anything else.
    """

    name: str
    about: str
    fps: float
    max_frames: int
    max_pixels: int
    total_pixels: int
    min_pixels: int = 3136
    image_min_pixels: int = 3136
    image_max_pixels: int = 1048576
    sampling: Sampling = Sampling()

    @property
    def max_video_tokens(self) -> int:
        """Visual tokens of a long and large video, without its time stamps."""
        slabs = self.max_frames // _FRAMES_OF_A_TOKEN
        per_slab = min(self.max_pixels, _FRAME_TOKENS * _TOKEN)
        return max(min(self.total_pixels, slabs * per_slab), slabs * self.min_pixels) // _TOKEN

    def budgets(self) -> Budgets:
        """Returns the limits as the media pipeline takes them."""
        return Budgets(
            video_fps=self.fps,
            video_max_frames=self.max_frames,
            video_min_pixels=self.min_pixels,
            video_max_pixels=self.max_pixels,
            video_total_pixels=self.total_pixels,
            image_min_pixels=self.image_min_pixels,
            image_max_pixels=self.image_max_pixels,
        )


def _long(name: str) -> Preset:
    """Returns a preset for videos of half an hour and more: many frames, 128 Ki tokens."""
    about = "long videos: 768 frames, 128 Ki tokens"
    return Preset(name, about, 2.0, 768, _FRAME_TOKENS * _TOKEN, 128 * _THOUSAND_TOKENS)


_QWEN_INSTRUCT = Sampling(0.7, 0.8, 20, 1.5, 32768, seed=3407)
_QWEN_THINKING = Sampling(0.6, 0.95, 20, 0.0, 32768)
_REFERENCE = Sampling(0.7, 0.8, 20, 1.5, 4096)

_ALL = (
    Preset(
        "qwen3vl",
        "of Qwen3-VL's published scores, as its staff states them",
        2.0,
        2048,
        _FRAME_TOKENS * _TOKEN,
        224 * _THOUSAND_TOKENS,
        sampling=_QWEN_THINKING,
    ),
    Preset(
        "qwen3vl-script",
        "of Qwen3-VL's evaluation scripts",
        2.0,
        512,
        512 * 28 * 28,
        24576 * 28 * 28,
        sampling=_QWEN_INSTRUCT,
    ),
    Preset(
        "qwen3vl-cookbook",
        "of Qwen3-VL's notebook on videos",
        2.0,
        2048,
        _FRAME_TOKENS * _TOKEN,
        20480 * _TOKEN,
        min_pixels=64 * _TOKEN,
    ),
    Preset(
        "easyvideor1",
        "of EasyVideoR1's evaluation script",
        2.0,
        256,
        256 * _TOKEN,
        32 * _THOUSAND_TOKENS,
        sampling=_REFERENCE,
    ),
    Preset(
        "easyvideor1-cli",
        "what EasyVideoR1's program takes where nothing is said",
        2.0,
        2048,
        640 * _TOKEN,
        160376 * _TOKEN,
        sampling=dataclasses.replace(_REFERENCE, max_tokens=2048),
    ),
    Preset("train", "of the report's training; short clips", 2.0, 128, 256 * _TOKEN, 2**24),
    Preset(
        "smoke",
        "a check on a CPU or one chip",
        1.0,
        32,
        64 * _TOKEN,
        _THOUSAND_TOKENS,
        sampling=Sampling(max_tokens=512),
    ),
    *map(_long, ("lvbench", "longvideobench_sub", "minerva", "longvideo_reason")),
    Preset("motionbench", "short motions: many frames, small ones", 8.0, 128, 128 * _TOKEN, 2**23),
    Preset(
        "video_reason_bench",
        "moves are counted, so frames of 448 x 448",
        2.0,
        128,
        448 * 448,
        64 * 448 * 448,
    ),
    Preset(
        "video_math_qa", "text on boards: large frames", 2.0, 256, 512 * 28 * 28, 128 * 512 * 28**2
    ),
    Preset("vsi_bench", "64 frames spread evenly", 2.0, 64, 256 * _TOKEN, 2**23),
    Preset("stvg", "boxes: large frames", 2.0, 128, 512 * 28 * 28, 64 * 512 * 28 * 28),
    Preset("ovo_bench", "the authors' 64 frames", 1.0, 64, 256 * _TOKEN, 2**23),
)
PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ALL}


def find(name: str) -> Preset:
    """Returns the preset of a name.

    Raises:
        ValueError: there is none of this name.
    """
    if name in PRESETS:
        return PRESETS[name]
    close = difflib.get_close_matches(name, PRESETS, 1)
    hint = f"did you mean {close[0]}? there is" if close else "there is"
    raise ValueError(f"no frame preset {name!r}; {hint} {', '.join(PRESETS)}")
