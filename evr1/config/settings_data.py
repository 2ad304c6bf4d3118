"""Settings of the rows and of the shapes of batches. `base.py` says what each means."""

import dataclasses
import math
from pathlib import Path

from evr1.config import checks, columns, urls
from evr1.config.checks import Section, require

SOURCES = ("prefer_preprocessed", "preprocessed_only", "realtime_only")
VIDEO_BUDGETS = ("qwen_vl_utils", "hf", "hf_capped")  # as in evr1.formats.video_size
CURRICULA = ("easy_first", "hard_first")
_SOURCES_FIX = (
    'give (("a.jsonl", 0.7), ("b.jsonl", 0.3)): files, and weights over 0 that add up to 1'
)


@dataclasses.dataclass(frozen=True)
class DataSettings(Section):
    """`config.data`: which rows, and how their media are read."""

    train: str
    eval: str
    sources: tuple[tuple[str, float], ...]
    columns: str | None
    problem_type: str
    max_bad_rows_share: float
    media_dir: str
    media_cache: str
    shards: str
    shard_cache: str
    shard_cache_gib: float
    storage: str
    generate: bool
    preprocess: bool
    source: str
    skip: tuple[str, ...]
    shuffle: bool
    curriculum: str
    video_fps: float
    video_max_frames: int
    video_min_pixels: int
    video_max_pixels: int
    video_total_pixels: int
    video_budget: str
    image_min_pixels: int
    image_max_pixels: int
    thinking: bool | None
    template_variables: str
    sanitize: bool
    template: str
    max_prompt_tokens: int
    filter_overlong: bool
    max_overlong_share: float
    max_failed_share: float
    decode_timeout_s: float
    workers: int
    prefetch_batches: int

    def check(self) -> None:
        self._check_sources()
        checks.choice("data.source", self.source, SOURCES)
        checks.choice("data.video_budget", self.video_budget, VIDEO_BUDGETS)
        if self.curriculum:
            checks.choice("data.curriculum", self.curriculum, CURRICULA)
        for kind, low, high in (
            ("image", self.image_min_pixels, self.image_max_pixels),
            ("video", self.video_min_pixels, self.video_max_pixels),
        ):
            require(
                0 < low <= high,
                f"data.{kind}_min_pixels",
                f"is {low} with data.{kind}_max_pixels={high}",
                "need 0 < min <= max: set both",
            )
        need = 'need texts, as in ("7f3a", "rows.jsonl:12", "bad_rows.txt")'
        checks.items("data.skip", self.skip, str, need)
        checks.positive("data", self, ("video_fps", "max_prompt_tokens", "workers"))
        checks.timeout("data.decode_timeout_s", self.decode_timeout_s)
        checks.at_least_0(
            "data", self, ("video_total_pixels", "prefetch_batches", "shard_cache_gib")
        )
        require(
            self.video_max_frames >= 2,
            "data.video_max_frames",
            f"is {self.video_max_frames}",
            "need 2 or more",
        )
        checks.share("data.max_failed_share", self.max_failed_share)
        checks.from_0_to_1("data.max_overlong_share", self.max_overlong_share)
        checks.share("data.max_bad_rows_share", self.max_bad_rows_share)
        columns.parse(self.columns)
        checks.choice("data.storage", self.storage, ("", "raw", "jpeg", "lossless"))
        has_shards = bool(self.shards) or self.generate  # generated clips have theirs in workdir
        require(
            self.source == "realtime_only" or not self.preprocess or has_shards,
            "data.shards",
            "is empty while data.preprocess is on",
            "give a directory for the shards",
        )
        require(
            self.source != "preprocessed_only" or has_shards,
            "data.shards",
            "is empty while data.source is preprocessed_only",
            "give the directory that evr1 preprocess wrote",
        )

    def _check_sources(self) -> None:
        fix = _SOURCES_FIX
        require(
            not (self.sources and self.train),
            "data.sources",
            f"is given beside data.train={self.train}",
            "give one of them",
        )
        for source in self.sources:
            is_pair = isinstance(source, tuple) and len(source) == 2
            ok = is_pair and isinstance(source[0], str) and isinstance(source[1], int | float)
            require(ok and math.isfinite(source[1]), "data.sources", f"holds {source!r}", fix)
        for path, weight in self.sources:
            require(weight > 0, "data.sources", f"gives {path} the weight {weight}", fix)
        total = sum(weight for _, weight in self.sources)
        require(
            not self.sources or abs(total - 1) < 1e-6,
            "data.sources",
            f"has weights of {total:g}",
            fix,
        )

    def check_paths(self) -> None:
        for path, _ in self.sources:
            is_there = self.generate or _is_file(path)  # generated files are written first
            require(is_there, "data.sources", f"{path}: no such file", _SOURCES_FIX)
        names = [path for path, _ in self.sources]
        paths = {p if urls.is_bucket(p) else Path(p).resolve() for p in names}
        require(len(paths) == len(self.sources), "data.sources", "holds a file twice", _SOURCES_FIX)
        if not urls.is_bucket(self.shards):
            checks.is_directory_or_free("data.shards", self.shards)
        checks.is_directory_or_free("data.shard_cache", self.shard_cache)
        require(
            not self.template or Path(self.template).is_file(),
            "data.template",
            f"is {self.template}: no such file",
            "give a Jinja2 file, or nothing for the built-in template",
        )
        if self.generate:
            return  # the rows are written first
        for field, path in (("data.train", self.train), ("data.eval", self.eval)):
            require(not path or _is_file(path), field, f"is {path}: no such file", "check it")


def _is_file(path: str) -> bool:
    """Returns whether a file is there; one in a bucket is looked for when it is read."""
    return urls.is_bucket(path) or Path(path).is_file()


@dataclasses.dataclass(frozen=True)
class ShapeSettings(Section):
    """`config.shapes`: what batches are padded to; empty where the rows decide."""

    prompt_tokens: tuple[int, ...]
    vision_rows: tuple[int, ...]
    row_patches: int

    def check(self) -> None:
        for name, sizes in (
            ("prompt_tokens", self.prompt_tokens),
            ("vision_rows", self.vision_rows),
        ):
            checks.items(f"shapes.{name}", sizes, int, "need whole numbers over 0")
            require(
                list(sizes) == sorted(set(sizes)),
                f"shapes.{name}",
                f"is {sizes}",
                "need ascending sizes, or () to derive them",
            )
        checks.at_least_0("shapes", self, ("row_patches",))
