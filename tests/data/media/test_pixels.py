"""Pixels of decoded frames: upright, of one size, and with the chroma that Qwen's readers give."""

from fractions import Fraction

import av
import numpy as np
import pytest
from clips import BUDGETS, GEOMETRY, gray_of, write_clip
from PIL import Image

from evr1.data.media import pixels, remarks, video
from evr1.data.media.resize import resize_float
from evr1.data.records import Budgets

ONE = 1 << 16  # of a display matrix
MATRICES = {  # (a, b, c, d): what becomes of a frame of height 64 and width 96
    (1, 0, 0, 1): lambda frame: frame,
    (-1, 0, 0, 1): lambda frame: frame[:, ::-1],
    (1, 0, 0, -1): lambda frame: frame[::-1],
    (-1, 0, 0, -1): lambda frame: frame[::-1, ::-1],
    (0, 1, -1, 0): lambda frame: np.rot90(frame, -1),  # a quarter clockwise, as phones write it
    (0, -1, 1, 0): lambda frame: np.rot90(frame, 1),
    (0, 1, 1, 0): lambda frame: frame.T,
    (0, -1, -1, 0): lambda frame: np.rot90(frame, 2).T,
}


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize("signs", MATRICES)
def test_all_eight_orientations(tmp_path, signs, suffix):
    a, b, c, d = (ONE * sign for sign in signs)
    matrix = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path = write_clip(tmp_path / f"a.{suffix}", 8, matrix=matrix)
    media = video.decode(path, BUDGETS, GEOMETRY)
    stored = np.zeros((64, 96), int)
    stored[:32, :48] = 255
    expected = MATRICES[signs](stored)
    assert media.frames.shape[1:3] == expected.shape
    assert np.abs(media.frames[0, ..., 0] - expected).mean() < 4


def test_side_data_that_pyav_does_not_know(tmp_path):
    """A frame with EXIF: PyAV 18 has no name for it."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    stored = np.zeros((64, 96, 3), np.uint8)
    stored[:32, :48] = 255
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=95)
    media = video.decode(tmp_path / "a.jpg", BUDGETS, GEOMETRY)
    assert np.abs(media.frames[0, ..., 0].astype(int) - np.rot90(stored[..., 0], -1)).mean() < 4


def test_another_angle_counts_as_the_nearest_quarter():
    frame = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    np.testing.assert_array_equal(pixels.upright(frame, (9, 4, -4, 9)), frame)
    quarter = np.rot90(frame, -1)
    np.testing.assert_array_equal(pixels.upright(frame, (4, 9, -9, 4)), quarter)


@pytest.mark.parametrize("size", [(65, 97), (65, 96), (64, 97), (64, 96)])
def test_chroma_is_scaled_as_in_the_qwen_readers(tmp_path, size):
    """FFmpeg's bicubic default; PyAV's own is bilinear, which shows where the height is odd."""
    path = tmp_path / "a.webm"
    rng = np.random.default_rng(0)
    height, width = size
    image = rng.integers(0, 256, (9, 13, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=30)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = *size, "yuv420p", 4_000_000
        for _ in range(3):
            plain = np.ascontiguousarray(image[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(plain, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    ours = pixels.Converter().rgb(frame)
    bicubic = frame.reformat(format="rgb24", interpolation="BICUBIC").to_ndarray()
    np.testing.assert_array_equal(ours, bicubic)
    bilinear = frame.to_ndarray(format="rgb24")
    assert (np.abs(ours.astype(int) - bilinear).max() > 10) == (height % 2 == 1)


def write_sizes(path, codec, sizes):
    """A second a size, each by an encoder of its own; a white square in the upper left quarter."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.height, stream.width = sizes[0]
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
        for part, (height, width) in enumerate(sizes):
            encoder = av.CodecContext.create(codec, "w")
            assert isinstance(encoder, av.VideoCodecContext)
            encoder.height, encoder.width, encoder.pix_fmt = height, width, "yuv420p"
            encoder.time_base, encoder.framerate = Fraction(1, 30), Fraction(30)
            encoder.bit_rate = 4_000_000
            image = np.full((height, width, 3), 100, np.uint8)
            image[: height // 2, : width // 2] = 255
            packets = []
            for i in range(30):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = 30 * part + i, Fraction(1, 30)
                packets += encoder.encode(frame)
            for packet in packets + encoder.encode():
                packet.stream, packet.time_base = stream, Fraction(1, 30)
                container.mux(packet)
    return path


@pytest.mark.parametrize("name", ["libvpx-vp9.webm", "mpeg4.mkv", "libvpx-vp9.mp4"])
def test_a_size_that_changes_is_fitted(tmp_path, name):
    """As a call whose quality rises, and whose camera is turned: one aspect ratio needs no bars."""
    sizes = [(64, 96), (128, 192), (96, 64)]
    path = write_sizes(tmp_path / name, name.split(".")[0], sizes)
    media = video.decode(path, BUDGETS, GEOMETRY)
    assert media.frames.shape == (6, 64, 96, 3)
    assert media.remarks == (remarks.SIZES,)
    wide = np.full((64, 96), 100)
    wide[:32, :48] = 255
    tall = np.zeros((64, 96), int)  # 64 rows of 96 leave 43 columns of 64
    tall[:, 26:69] = 100
    tall[:32, 26:47] = 255
    for index, expected in {0: wide, 2: wide, 3: wide, 5: tall}.items():
        assert np.abs(media.frames[index, ..., 0] - expected).mean() < 4, index
    shape = video.measure(path, BUDGETS, GEOMETRY)
    assert (shape.frames, shape.height, shape.width) == (6, 64, 96)


def test_one_size_is_resized_as_ever(tmp_path):
    media = video.decode(write_clip(tmp_path / "a.mp4", 30), Budgets(), GEOMETRY)
    assert media.remarks == ()
    assert (gray_of(media.frames) > 0).any()
    frame = np.random.default_rng(0).integers(0, 256, (70, 100, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        pixels.fit_frame(frame, (70, 100), (64, 96), Budgets()),
        resize_float(frame[None], 64, 96)[0],
    )
