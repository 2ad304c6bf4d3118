"""Values that several threads ask for: worked out once, kept while there is room."""

import collections
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Memo(Generic[T]):
    """The values that were used last, as many as fit; an error is nobody's but the asker's."""

    def __init__(self, limit: int, size_of: Callable[[T], int]):
        """Takes how much is kept.

        Args:
            limit: sizes of all that is kept, together.
            size_of: of a value.
        """
        self.limit, self.size = limit, 0
        self._size_of = size_of
        self._kept: collections.OrderedDict[Hashable, T] = collections.OrderedDict()
        self._coming: dict[Hashable, Future[T]] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Returns the value of a key; who asks while it is made waits for it."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            mine: Future[T] = Future()
            coming = self._coming.setdefault(key, mine)
        if coming is not mine:
            return coming.result()
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                del self._coming[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._coming[key]
            self._keep(key, value)
        mine.set_result(value)
        return value

    def _keep(self, key: Hashable, value: T) -> None:
        if (size := self._size_of(value)) > self.limit:
            return
        self._kept[key] = value
        self.size += size
        while self.size > self.limit:
            _, dropped = self._kept.popitem(last=False)
            self.size -= self._size_of(dropped)
