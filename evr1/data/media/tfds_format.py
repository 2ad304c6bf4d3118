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

from evr1.data.media import storage as storage_of
from evr1.data.media.storage import RAW
from evr1.data.records import Media

NAME = "media"
SPLIT = "train"
_INFO, _FEATURES = "dataset_info.json", "features.json"
READ_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


@functools.cache
def media_features(storage: str = RAW) -> Any:
    """Returns TFDS's description of a record's fields.

    Args:
        storage: how pixels are kept: as one array, or as a list of files in `encoded`.
    """
    import tensorflow_datasets as tfds  # half a second; only writing needs it

    pixels: dict[str, Any] = {
        "frames": tfds.features.Tensor(
            shape=(None, None, None, 3), dtype=np.uint8, encoding="bytes"
        ),
    }
    if storage != RAW:
        pixels = {
            "encoded": tfds.features.Sequence(tfds.features.Text()),
            "psnr": tfds.features.Tensor(shape=(), dtype=np.float64, encoding="bytes"),
            "shape": tfds.features.Tensor(shape=(4,), dtype=np.int64),
            "storage": tfds.features.Text(),
        }
    return tfds.features.FeaturesDict(
        {
            "key": tfds.features.Text(),
            "path": tfds.features.Text(),
            **pixels,
            "timestamps": tfds.features.Tensor(shape=(None,), dtype=np.float64, encoding="bytes"),
            "is_video": tfds.features.Scalar(np.bool_),
            "sample_fps": tfds.features.Tensor(shape=(), dtype=np.float64, encoding="bytes"),
        }
    )


def serialize(key: str, media: Media, path: str, storage: str = RAW) -> bytes:
    """Returns the record of a medium under a key; `path` is for people who look into it.

    It says what TFDS's `serialize_example` does for `media_features`, in the order of the names,
    with one copy of the pixels where that makes five.

    Args:
        key: see `content_key`.
        media: its frames.
        path: of its file.
        storage: how to keep the pixels, see `evr1.data.media.storage`.

    Raises:
        ValueError: over 2 GiB, which no protobuf message may have.
    """
    fields = [
        ("is_video", 3, [_packed([int(media.is_video)])]),
        ("key", 1, [key.encode()]),
        ("path", 1, [path.encode()]),
        ("sample_fps", 1, [np.float64(media.sample_fps).tobytes()]),
        ("timestamps", 1, [np.asarray(media.timestamps, np.float64).tobytes()]),
        *_pixel_fields(media.frames, storage),
    ]
    entries = []
    for name, kind, parts in sorted(fields, key=lambda field: field[0]):
        values = [piece for part in parts for piece in _field(1, [part])]
        feature = _field(kind, values)
        entries += _field(1, [*_field(1, [name.encode()]), *_field(2, feature)])
    parts = _field(1, entries)
    if sum(map(len, parts)) >= 2**31:
        raise ValueError(f"{path}: {sum(map(len, parts))} bytes; a record holds 2 GiB: sample less")
    return b"".join(parts)


def _pixel_fields(
    frames: np.ndarray, how: str
) -> list[tuple[str, int, Sequence[bytes | memoryview]]]:
    """Returns the (name, kind, values) of the fields that hold the frames."""
    shape = [_packed(frames.shape)]
    if how == RAW:
        pixels = np.ascontiguousarray(frames).reshape(-1).data
        return [("frames/shape", 3, shape), ("frames/value", 1, [pixels])]
    encoded = storage_of.encode(frames, how)
    loss = storage_of.psnr(frames, storage_of.decode(encoded, frames.shape, how))
    return [
        ("encoded", 1, encoded),
        ("psnr", 1, [np.float64(loss).tobytes()]),
        ("shape", 3, shape),
        ("storage", 1, [how.encode()]),
    ]


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


def parse(record: bytes, *, is_outline: bool = False) -> tuple[str, Media]:
    """Returns the key and the medium of a record; frames that are kept as they are are not copied.

    Wire format: Example{1: Features{1: {1: name, 2: Feature{1: bytes or 3: int64 list}}}}.

    Args:
        record: see `serialize`.
        is_outline: the frames have their shape but for the colors, and no pixels.

    Raises:
        ValueError: it is something else.
    """
    fields: dict[str, list[memoryview]] = {}
    [features] = _messages(memoryview(record))
    for entry in _messages(features):
        name, feature = _messages(entry)
        [values] = _messages(feature)
        fields[bytes(name).decode()] = list(_messages(values))
    how = bytes(fields["storage"][0]).decode() if "storage" in fields else RAW
    shape = list(_varints(fields["frames/shape" if how == RAW else "shape"][0]))
    if is_outline:
        frames = np.empty((*shape[:3], 0), np.uint8)
    elif how == RAW:
        frames = np.frombuffer(fields["frames/value"][0], np.uint8).reshape(shape)
    else:
        frames = storage_of.decode(fields["encoded"], shape, how)
    timestamps = np.frombuffer(fields["timestamps"][0], np.float64)
    is_video = next(_varints(fields["is_video"][0])) == 1
    fps = fields.get("sample_fps")  # older records have none, and keys that nobody asks for
    media = Media(
        frames,
        timestamps,
        is_video,
        sample_fps=float(np.frombuffer(fps[0], np.float64)[0]) if fps else 0.0,
        psnr=float("inf") if how == RAW else float(np.frombuffer(fields["psnr"][0], np.float64)[0]),
    )
    return bytes(fields["key"][0]).decode(), media


def write_metadata(
    root: pathlib.Path, counts: Sequence[int], total_bytes: int, storage: str = RAW
) -> None:
    """Writes what `tfds.builder_from_directory` reads: the fields, and the records a shard has.

    TFDS writes it once, and looks at every file for that; then the numbers alone are replaced.

    Args:
        root: directory of the shards.
        counts: records of each complete shard, in order.
        total_bytes: of all shards.
        storage: how pixels are kept.
    """
    path = root / _INFO
    split = {"shardLengths": [str(count) for count in counts], "numBytes": str(total_bytes)}
    if not (root / _FEATURES).is_file() or (info := _known_info(path)) is None:
        _write_anew(root, counts, total_bytes, storage)
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


def _write_anew(root: pathlib.Path, counts: Sequence[int], total_bytes: int, storage: str) -> None:
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
        features=media_features(storage),
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
