"""Which stream of a file is the video."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition
from clips import BUDGETS, GEOMETRY
from PIL import Image

from evr1.data.errors import MediaError
from evr1.data.media import video

COVER, SHOWN = 200, 40  # gray levels
NONE = Disposition(0)
FILES = {  # (codec, frames, gray, disposition) of each stream
    "marked_cover_first": [
        ("mjpeg", 1, COVER, Disposition.attached_pic),
        ("libx264", 60, SHOWN, None),
    ],
    "marked_cover_last": [
        ("libx264", 60, SHOWN, None),
        ("mjpeg", 1, COVER, Disposition.attached_pic),
    ],
    "cover_first": [("mjpeg", 1, COVER, None), ("libx264", 60, SHOWN, None)],
    "cover_is_default": [("mjpeg", 1, COVER, Disposition.default), ("libx264", 60, SHOWN, NONE)],
    "second_is_default": [
        ("libx264", 60, COVER, NONE),
        ("libx264", 60, SHOWN, Disposition.default),
    ],
    "none_is_default": [("libx264", 60, SHOWN, NONE), ("libx264", 60, COVER, NONE)],
    "both_are_default": [
        ("libx264", 60, SHOWN, Disposition.default),
        ("libx264", 90, COVER, Disposition.default),
    ],
}
CANNOT_MARK = {("ts", "second_is_default"), ("avi", "second_is_default")}


def write(path, streams):
    with av.open(str(path), "w") as container:
        made = []
        for codec, _, _, disposition in streams:
            stream = container.add_stream(codec, rate=30)
            stream.width, stream.height = 96, 64
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            if disposition is not None:
                stream.disposition = disposition
            made.append(stream)
        container.start_encoding()
        for stream, (_, frames, gray, _) in zip(made, streams, strict=True):
            image = np.full((64, 96, 3), gray, np.uint8)
            image[:32] = 0
            for i in range(frames):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame = frame.reformat(format=stream.pix_fmt)
                frame.pts, frame.time_base = i, Fraction(1, 30)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return path


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov", "ts", "avi"])
@pytest.mark.parametrize("name", FILES)
def test_the_video_is_neither_a_cover_nor_another_than_the_default(tmp_path, name, suffix):
    if (suffix, name) in CANNOT_MARK:
        return
    path = write(tmp_path / f"a.{suffix}", FILES[name])
    media = video.decode(path, BUDGETS, GEOMETRY)
    assert len(media.frames) == 4
    assert abs(int(media.frames[0, -1, -1, 0]) - SHOWN) < 5
    assert video.measure(path, BUDGETS, GEOMETRY).frames == 4


def test_a_picture_alone_is_what_there_is(tmp_path):
    path = write(tmp_path / "a.mkv", [("mjpeg", 1, COVER, Disposition.attached_pic)])
    assert video.decode(path, BUDGETS, GEOMETRY).frames.shape == (2, 64, 96, 3)


def test_an_animated_webp_is_refused_with_the_reason(tmp_path):
    """FFmpeg before 9 gives no frame of one; a still one is a video of one frame."""
    frames = [Image.new("RGB", (96, 64), (40 * i,) * 3) for i in range(6)]
    frames[1].save(tmp_path / "still.webp")
    assert video.decode(tmp_path / "still.webp", BUDGETS, GEOMETRY).frames.shape == (2, 64, 96, 3)
    for suffix in ("webp", "gif", "png"):
        path = tmp_path / f"moving.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, lossless=True)
        if suffix == "webp" and av.__version__.startswith("18."):
            for read in (video.measure, video.decode):
                with pytest.raises(MediaError, match="an animated WebP, which PyAV 18") as error:
                    read(path, BUDGETS, GEOMETRY)
                assert error.value.kind == "undecodable"
            continue
        media = video.decode(path, BUDGETS, GEOMETRY)
        assert media.frames[:, 0, 0, 0].tolist() == [0, 80, 120, 200]
        np.testing.assert_allclose(media.timestamps, [0, 0.2, 0.3, 0.5])


def test_a_stream_of_an_unknown_codec_is_passed_over(tmp_path):
    path = write(tmp_path / "a.mov", [("libx264", 60, COVER, None), ("mpeg4", 60, SHOWN, None)])
    data = path.read_bytes().replace(b"avc1", b"zzzz")
    path.write_bytes(data)
    media = video.decode(path, BUDGETS, GEOMETRY)
    assert abs(int(media.frames[0, -1, -1, 0]) - SHOWN) < 5
    path = write(tmp_path / "b.mov", [("libx264", 60, COVER, None)] * 2)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(MediaError, match="its codec cannot be told"):
        video.decode(path, BUDGETS, GEOMETRY)
