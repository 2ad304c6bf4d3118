"""The source of pixels: shards, the files themselves, or shards first."""

import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from evr1.config import urls
from evr1.data.errors import MediaError
from evr1.data.media import patches, remarks, storage
from evr1.data.media.content import FileTable
from evr1.data.media.decode import DecodePool
from evr1.data.media.place import Place
from evr1.data.media.quarantine import Quarantine
from evr1.data.media.requests import Opener, Request, check_budgets, media_requests
from evr1.data.media.shards import QUARANTINE, ShardStore
from evr1.data.records import Budgets, Geometry, Media, MediaSize

__all__ = ["MODES", "MediaSource", "Request", "check_budgets", "media_requests"]

T = TypeVar("T")
MODES = ("prefer_preprocessed", "preprocessed_only", "realtime_only")


class MediaSource:
    """Sizes and pixels of media, and which media failed; safe to use from many threads.

    Attributes:
        told: the remarks of `remarked` that were told.
    """

    def __init__(
        self,
        *,
        budgets: Budgets,
        geometry: Geometry,
        pool: DecodePool,
        media_dir: str = "",
        shards: str | Place = "",
        mode: str = "prefer_preprocessed",
    ):
        """Opens the shards.

        Args:
            budgets: how much of a medium is looked at.
            geometry: of the model.
            pool: where files are decoded.
            media_dir: put in front of relative paths.
            shards: directory of evr1 preprocess, see `place.place_of`; empty: none.
            mode: one of `MODES`.

        Raises:
            ValueError: unknown mode, no shards where they are needed, damaged ones, or budgets that
                cross.
        """
        if mode not in MODES:
            raise ValueError(f"data.source={mode!r}; give one of {', '.join(MODES)}")
        if mode == "preprocessed_only" and not shards:
            raise ValueError(
                "data.source=preprocessed_only needs data.shards; set it or change the source"
            )
        check_budgets(budgets)
        how = storage.of_directory(shards) if shards else storage.RAW
        self._opener = Opener(media_dir, budgets, geometry, how)
        self._geometry, self._pool, self._mode = geometry, pool, mode
        self._shards = shards
        self._store = ShardStore(shards) if shards and mode != "realtime_only" else None
        if self._store is not None:
            self._store.check()
        self._files = FileTable(shards if self._store else None)
        self._notes = remarks.RemarkTable(shards) if self._store else None
        self._known_bad = Quarantine(os.path.join(shards, QUARANTINE)) if self._store else None
        self._sizes: dict[Request, MediaSize | MediaError] = {}
        self._failed: dict[Request, MediaError] = {}
        self._remarked: dict[Request, tuple[str, ...]] = {}
        self._psnr_sum, self._psnr_count, self._counting = 0.0, 0, threading.Lock()
        self.told = remarks.Told()

    @property
    def failed(self) -> Mapping[Request, MediaError]:
        """The media that could not be used so far, and why."""
        return dict(self._failed)

    @property
    def remarked(self) -> Mapping[Request, tuple[str, ...]]:
        """The media that may not show what they should, as far as they were looked at, and why."""
        return dict(self._remarked)

    @property
    def psnr(self) -> float:
        """Mean dB of the media that were read from shards that lose something; 0: none was."""
        return self._psnr_sum / max(self._psnr_count, 1)

    @property
    def lost_shards(self) -> list[str]:
        """A line for each shard file that is gone while its index is there."""
        return self._store.lost if self._store else []

    def remarks(self, request: Request) -> tuple[str, ...]:
        """Returns what `remarked` holds of a medium."""
        return self._remarked.get(request, ())

    def path(self, request: Request) -> str:
        """Returns where a medium lies; see `Opener.path`."""
        return self._opener.path(request)

    def size(self, request: Request) -> MediaSize:
        """Returns the grid and timestamps of a medium, from the shards' index or the file's header.

        Raises:
            MediaError: it cannot be used; it is counted in `failed`.
        """
        size = self.measure(request)
        if isinstance(size, MediaError):
            raise size
        return size

    def measure(self, request: Request) -> MediaSize | MediaError:
        """Returns what `size` does, or the error; the file is opened the first time alone."""
        size = self._sizes.get(request)
        if size is None:
            try:
                size = self._counted(self._size, request)
            except MediaError as error:
                size = error
            self._sizes[request] = size
        return size

    def is_measured(self, request: Request) -> bool:
        """Returns whether `measure` knows without opening the file."""
        return request in self._sizes

    def learn(self, request: Request, size: MediaSize | MediaError) -> None:
        """Takes over what somebody else has measured; an error is counted in `failed`."""
        self._sizes[request] = size
        if isinstance(size, MediaError):
            self._failed.setdefault(request, size)

    def load(self, request: Request) -> Media:
        """Returns the pixels of a medium.

        Raises:
            MediaError: it cannot be used; it is counted in `failed`.
            ValueError: a damaged shard.
        """
        return self._counted(self._load, request)

    def count_cached(self, requests: Iterable[Request]) -> int:
        """Returns how many of these media are in the shards, with the budgets of this source."""
        return sum(map(self._is_cached, requests))

    def without_files(self, requests: Iterable[Request]) -> tuple[int, list[str]]:
        """Returns how many media are in the shards alone, and the paths of those that are nowhere.

        Files in buckets are not looked for.
        """
        alone, nowhere = 0, list[str]()
        for request in requests:
            path = self.path(request)
            if urls.is_bucket(path) or os.path.exists(path):
                continue
            if self._is_cached(request):
                alone += 1
            else:
                nowhere.append(path)
        return alone, nowhere

    def _is_cached(self, request: Request) -> bool:
        try:
            return self._key(request) is not None
        except MediaError:
            return False

    def _counted(self, action: Callable[[Request], T], request: Request) -> T:
        if request in self._failed:
            raise self._failed[request]
        try:
            return action(request)
        except MediaError as error:
            self._failed.setdefault(request, error)
            raise

    def _key(self, request: Request) -> str | None:
        """Returns the key of the entry to use; None where the medium is to be decoded."""
        if self._store is None:
            return None
        path = self._opener.path(request)
        key = self._opener.key(request, self._files)
        if key in self._store:
            return key
        if self._known_bad is not None:
            limit_s = 0.0 if self._mode == "preprocessed_only" else self._pool.timeout_s
            self._known_bad.check(path, limit_s)  # the reason why it is not there
        return self._uncached(path, f"not in {self._shards} with these budgets")

    def _uncached(self, path: str, reason: str) -> None:
        if self._mode == "preprocessed_only":
            raise MediaError("uncached", path, reason)

    def _size(self, request: Request) -> MediaSize:
        key = self._key(request)
        entry = self._store.find(key) if self._store and key else None
        if self._notes and key and (about := self._notes.of(key)):
            self._remarked[request] = about
        shape = entry.shape if entry else self._pool.measure(self._opener.job(request))
        grid = patches.grid_of(shape.frames, shape.height, shape.width, self._geometry)
        return MediaSize(grid, shape.timestamps.tolist(), shape.is_video)

    def _load(self, request: Request) -> Media:
        key = self._key(request)
        if self._store and key:
            media = self._store.read(key)
            if math.isfinite(media.psnr):
                with self._counting:
                    self._psnr_sum += media.psnr
                    self._psnr_count += 1
            return media
        media = self._pool.decode(self._opener.job(request))
        if media.remarks:
            self._remarked[request] = media.remarks
        return media
