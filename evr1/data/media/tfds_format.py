"""The records of a shard as a TFDS data set has them, and that data set's metadata.

A record is a serialized tf.train.Example; it is read here without TFDS and without TensorFlow.
"""

import functools
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from evr1.data.records import Media

NAME = "media"
SPLIT = "train"
_INFO, _FEATURES = "dataset_info.json", "features.json"
READ_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


@functools.cache
def media_features() -> Any:
    """Returns TFDS's description of a record's fields."""
    import tensorflow_datasets as tfds  # half a second; only writing needs it

    return tfds.features.FeaturesDict(
        {
            "key": tfds.features.Text(),
            "path": tfds.features.Text(),
            "frames": tfds.features.Tensor(
                shape=(None, None, None, 3), dtype=np.uint8, encoding="bytes"
            ),
            "timestamps": tfds.features.Tensor(shape=(None,), dtype=np.float64, encoding="bytes"),
            "is_video": tfds.features.Scalar(np.bool_),
            "sample_fps": tfds.features.Tensor(shape=(), dtype=np.float64, encoding="bytes"),
        }
    )


def serialize(key: str, media: Media, path: str) -> bytes:
    """Returns the record of a medium under a key; `path` is for people who look into it.

    It says what TFDS's `serialize_example` does for `media_features`, in the order of the names,
    with one copy of the pixels where that makes five.

    Raises:
        ValueError: over 2 GiB, which no protobuf message may have.
    """
    frames = np.ascontiguousarray(media.frames)
    pixels = frames.reshape(-1).data
    fields = [
        ("frames/shape", 3, _packed(frames.shape)),
        ("frames/value", 1, pixels),
        ("is_video", 3, _packed([int(media.is_video)])),
        ("key", 1, key.encode()),
        ("path", 1, path.encode()),
        ("sample_fps", 1, np.float64(media.sample_fps).tobytes()),
        ("timestamps", 1, np.asarray(media.timestamps, np.float64).tobytes()),
    ]
    entries = []
    for name, kind, value in fields:
        values = _field(1, [value])
        feature = _field(kind, values)
        entries += _field(1, [*_field(1, [name.encode()]), *_field(2, feature)])
    parts = _field(1, entries)
    if sum(map(len, parts)) >= 2**31:
        raise ValueError(
            f"{path}: {frames.nbytes} bytes of pixels; a record holds 2 GiB: sample less"
        )
    return b"".join(parts)


def _field(number: int, payload: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
    """Returns the parts of a length-delimited field of a protobuf message."""
    return [bytes([number << 3 | 2]) + _varint(sum(map(len, payload))), *payload]


def _packed(values: Iterable[int]) -> bytes:
    return b"".join(map(_varint, values))


def _varint(value: int) -> bytes:
    """Returns a non-negative integer, seven bits a byte.

    >>> _varint(384).hex()
    '8003'
    """
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def parse(record: bytes) -> tuple[str, Media]:
    """Returns the key and the medium of a record; the frames are not copied.

    Wire format: Example{1: Features{1: {1: name, 2: Feature{1: bytes or 3: int64 list}}}}.
    """
    fields: dict[str, memoryview] = {}
    [features] = _messages(memoryview(record))
    for entry in _messages(features):
        name, feature = _messages(entry)
        [values] = _messages(feature)
        fields[bytes(name).decode()] = next(_messages(values))
    shape = list(_varints(fields["frames/shape"]))
    frames = np.frombuffer(fields["frames/value"], np.uint8).reshape(shape)
    timestamps = np.frombuffer(fields["timestamps"], np.float64)
    is_video = next(_varints(fields["is_video"])) == 1
    fps = fields.get("sample_fps")  # older records have none, and keys that nobody asks for
    sample_fps = float(np.frombuffer(fps, np.float64)[0]) if fps else 0.0
    return bytes(fields["key"]).decode(), Media(frames, timestamps, is_video, sample_fps)


def write_metadata(root: pathlib.Path, counts: Sequence[int], total_bytes: int) -> None:
    """Writes what `tfds.builder_from_directory` reads: the fields, and the records a shard has.

    TFDS writes it once, and looks at every file for that; then the numbers alone are replaced.

    Args:
        root: directory of the shards.
        counts: records of each complete shard, in order.
        total_bytes: of all shards.
    """
    path = root / _INFO
    split = {"shardLengths": [str(count) for count in counts], "numBytes": str(total_bytes)}
    if not (root / _FEATURES).is_file() or (info := _known_info(path)) is None:
        _write_anew(root, counts, total_bytes)
        return
    info["splits"][0] |= split
    temporary = path.with_name(f".writing-{os.getpid()}-{path.name}")
    temporary.write_text(json.dumps(info), "utf-8")
    temporary.replace(path)


def _known_info(path: pathlib.Path) -> dict[str, Any] | None:
    """Returns the metadata that TFDS wrote for these fields; None: there is none."""
    try:
        info = json.loads(path.read_bytes())
        is_ours = [split["name"] for split in info["splits"]] == [SPLIT]
        is_ours = is_ours and "{SHARD_INDEX}" in info["splits"][0]["filepathTemplate"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return info if is_ours else None


def _write_anew(root: pathlib.Path, counts: Sequence[int], total_bytes: int) -> None:
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        data_dir=epath.Path(root),
        template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}",
        dataset_name=NAME,
        split=SPLIT,
        filetype_suffix="array_record",
    )
    split = tfds.core.SplitInfo(
        name=SPLIT,
        shard_lengths=list(counts),
        num_bytes=total_bytes,
        filename_template=template,
    )
    tfds.folder_dataset.write_metadata(
        data_dir=root,
        features=media_features(),
        split_infos=[split],
        filename_template=template,
        check_data=False,
        description="Decoded, sampled and resized video frames and images.",
    )


def _messages(data: memoryview) -> Iterator[memoryview]:
    """Yields the payloads of a protobuf message whose fields are all length-delimited."""
    while data:
        if data[0] & 7 != 2:
            raise ValueError("not an example")
        size, shift, at = 0, 0, 1
        while True:
            size |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 128:
                break
        yield data[at : at + size]
        data = data[at + size :]


def _varints(data: memoryview) -> Iterator[int]:
    """Yields packed non-negative integers.

    >>> list(_varints(memoryview(bytes([5, 0x80, 3]))))
    [5, 384]
    """
    value, shift = 0, 0
    for byte in data:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield value
            value, shift = 0, 0
