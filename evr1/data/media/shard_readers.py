"""Readers of shard files: few are open at a time, and a fault is told as what it is.

ArrayRecord's reader raises nothing where a file is missing or no descriptor is left: it has no
records. So the file is opened by itself first, and before one is called damaged it is read to its
end: a disk that fails, or a limit of the process, raises its own error there.
"""

import collections
import errno
import pathlib
import resource
import threading

from array_record.python.array_record_module import ArrayRecordReader

from evr1.data.media.tfds_format import READ_OPTIONS

OPEN_READERS = 64
_BLOCK_BYTES = 2**20
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)


class Damaged(ValueError):
    """A file that reads well and is not what was written."""


class Readers:
    """At most so many open readers, the least recently used closed first; safe to use from threads.

    A reader has one position, so it belongs to one thread while that reads.
    """

    def __init__(self, limit: int = OPEN_READERS):
        self._limit = limit
        self._idle: collections.OrderedDict[pathlib.Path, ArrayRecordReader] = (
            collections.OrderedDict()
        )
        self._lock = threading.Lock()

    def read(self, path: pathlib.Path, record: int, count: int) -> bytes:
        """Returns a record of the shard at `path`, its hash checked.

        Args:
            path: of the shard.
            record: number in the shard.
            count: records that the shard should have.

        Raises:
            Damaged: the file can be read, and its hash is not right or it holds something else.
            OSError: the file cannot be read.
        """
        try:
            return self._read(path, record, count)
        except OSError as error:
            if error.errno not in _NO_DESCRIPTORS:
                raise
        except Damaged:
            read_through(path)
        self._keep(0)  # what was open may be why nothing else can be
        return self._read(path, record, count)

    def _read(self, path: pathlib.Path, record: int, count: int) -> bytes:
        with self._lock:
            reader = self._idle.pop(path, None)
        reader = reader or open_reader(path)
        try:
            if reader.num_records() != count:
                raise Damaged(f"{reader.num_records()} records, {count} in the index")
            reader.seek(record)  # it beats `read([i])` by 5
            data = reader.read()
        except (RuntimeError, ValueError, LookupError) as error:
            reader.close()  # one that failed is not used again
            raise Damaged(" ".join(str(error).split())) from None
        with self._lock:
            other = self._idle.pop(path, None)
            self._idle[path] = reader
        if other is not None:
            other.close()
        self._keep(self._limit)
        return data

    def _keep(self, limit: int) -> None:
        while True:
            with self._lock:
                if len(self._idle) <= limit:
                    return
                _, reader = self._idle.popitem(last=False)
            reader.close()


def open_reader(path: pathlib.Path) -> ArrayRecordReader:
    """Returns a reader of the shard at `path`.

    Raises:
        Damaged: it is cut off, or no ArrayRecord file; or no descriptor was left a moment ago.
        OSError: it cannot be opened.
    """
    path.open("rb").close()
    reader = ArrayRecordReader(str(path), READ_OPTIONS)
    if not reader.ok():  # it says nothing by itself
        raise Damaged("the file is cut off, or no ArrayRecord file")
    return reader


def open_surely(path: pathlib.Path) -> ArrayRecordReader:
    """Returns what `open_reader` does; only a file that reads well to its end is called damaged."""
    try:
        return open_reader(path)
    except Damaged:
        read_through(path)
        return open_reader(path)


def read_through(path: pathlib.Path) -> None:
    """Reads a file to its end.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        while file.read(_BLOCK_BYTES):
            pass


def tell(path: pathlib.Path, error: OSError) -> str:
    """Returns in a line why a shard cannot be read, and what to do; never to delete it."""
    if error.errno in _NO_DESCRIPTORS:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        fix = f"raise ulimit -n, now {soft} of at most {hard}"
    elif error.errno == errno.ENOENT:
        fix = "bring it back, or run evr1 preprocess again, which writes what is missing"
    else:
        fix = "look at the disk or the connection, and run again"
    reason = error.strerror or error
    return f"{path}: cannot be read ({reason}); {fix}; the file itself is not known to be damaged"
