"""When frames are shown: by their packets, in whatever container, and not by its header."""

from fractions import Fraction

import av
import numpy as np
import pytest
from clips import GEOMETRY, GRAY_STEP, gray_of, write_clip

from evr1.data.errors import MediaError
from evr1.data.media import clock as clocks
from evr1.data.media import sampling, video
from evr1.data.media.container import open_video
from evr1.data.records import Budgets

BUDGETS = Budgets(video_max_frames=400, video_max_pixels=64 * 96)
# a screen recording: idle at 1 fps, busy for 2 s at 30 fps, idle again
BUSY_MS = [1000 * i for i in range(6)] + [6000 + round(i * 100 / 3) for i in range(60)]
BUSY_MS += [8000 + 1000 * i for i in range(6)]
FORMATS = {
    "a.mp4": {},
    "no_reordering.mp4": {"b_frames": 0},
    "a.mov": {},
    "a.mkv": {},
    "a.webm": {"codec": "libvpx-vp9"},
    "live.webm": {"codec": "libvpx-vp9", "muxer": {"live": "1"}},  # no duration and no cues
    "a.ts": {},
    "a.flv": {},
    "a.nut": {},
    "mpeg4.mkv": {"codec": "mpeg4"},
    "hevc.mp4": {"codec": "libx265"},
    "first_fragment.mp4": {"movflags": "frag_keyframe"},
    "fragments.mp4": {"movflags": "frag_keyframe+empty_moov"},
}


def check(path, times, start=None, end=None, budgets=BUDGETS):
    """Plan and pixels are of the frames that lie in the clip, at their times; returns marks."""
    media = video.decode(path, budgets, GEOMETRY, start, end)
    inside = np.flatnonzero((times >= (start or 0) - 0.002) & (times <= (end or 1e9) + 0.002))
    assert set(np.round(gray_of(media.frames) / GRAY_STEP)) <= set(inside % 64)
    nearest = np.abs(times[:, None] - media.timestamps).argmin(axis=0)
    np.testing.assert_allclose(media.timestamps, times[nearest], atol=0.002)
    assert np.abs(gray_of(media.frames) - nearest * GRAY_STEP % 256).max() <= 2
    assert (nearest[0], nearest[-1]) == (inside[0], inside[-1])
    shape = video.measure(path, budgets, GEOMETRY, start, end)
    np.testing.assert_array_equal(shape.timestamps, media.timestamps)
    assert (shape.frames, shape.height, shape.width, 3) == media.frames.shape
    return media


def write_fade(path, times_ms):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for i, time in enumerate(times_ms):
            image = np.full((64, 96, 3), max(255 - 2 * i, 0), np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("name", FORMATS)
def test_a_varying_rate_is_that_of_the_packets(tmp_path, name):
    path = write_clip(tmp_path / name, len(BUSY_MS), times_ms=BUSY_MS, **FORMATS[name])
    times = np.array(BUSY_MS) / 1000
    media = check(path, times)
    assert len(media.frames) == 26  # 13.2 s at 2 fps
    assert len(check(path, times, 6.0, 8.0).frames) == 4  # 61 frames, 2.03 s
    assert len(check(path, times, 1.0, 5.0).frames) == 4  # of the five that there are
    assert video.decode(path, BUDGETS, GEOMETRY, 8.5, 9.5).timestamps[0] == pytest.approx(
        9, abs=0.002
    )
    assert video.read_header(path).duration == pytest.approx(13.2, abs=0.05)


def test_frames_that_an_avi_drops(tmp_path):
    turns = [30 * i for i in range(6)] + list(range(180, 240)) + [240 + 30 * i for i in range(6)]
    path = write_clip(tmp_path / "a.avi", len(turns), turns=turns, codec="mpeg4", gop=4)
    assert len(check(path, np.array(turns) / 30).frames) == 26
    check(path, np.array(turns) / 30, 6.0, 8.0)


def test_times_in_order_are_no_sign_that_there_are_none(tmp_path):
    """x264 uses no B-frames for fades, though its header allows them; two times may be equal."""
    for name in ("a.mp4", "a.mkv"):
        path = tmp_path / name
        write_fade(path, BUSY_MS)
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            pts = [packet.pts for packet in container.demux(stream) if packet.size]
            assert stream.codec_context.has_b_frames
            assert pts == sorted(pts)
        media = video.decode(path, BUDGETS, GEOMETRY)
        np.testing.assert_allclose(media.timestamps[:3], [0, 3, 6.003], atol=0.04)
        assert media.timestamps[-1] == pytest.approx(13.0, abs=0.002)


def test_two_frames_of_one_time(tmp_path):
    """Matroska counts milliseconds, so frames that are closer get the same time."""
    turns = (
        [2400 * i for i in range(6)]
        + [14400 + i for i in range(60)]
        + [16800 + 2400 * i for i in range(6)]
    )
    path = write_clip(tmp_path / "a.mkv", len(turns), turns=turns, fps=2400)
    with open_video(path) as (container, stream):
        pts = [packet.pts for packet in container.demux(stream) if packet.size]
        assert len(set(pts)) < len(pts)
    media = video.decode(path, BUDGETS, GEOMETRY)
    frames = np.round(gray_of(media.frames) / GRAY_STEP).astype(int)
    stored = np.round(np.array(turns) / 2.4) / 1000
    first = {int(i) % 64: stored[i] for i in range(64)}
    assert media.timestamps[0] == 0
    early = frames[:20]
    np.testing.assert_allclose(media.timestamps[:20], [first[i] for i in early], atol=0.002)


def test_joined_transport_streams_go_on(tmp_path):
    """The second part starts its time anew."""
    one = write_clip(tmp_path / "one.ts", 60).read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(one + one)
    media = video.decode(path, BUDGETS, GEOMETRY)
    assert len(media.frames) == 8
    indices = sampling.sample_indices(120, 30.0, 2.0, 400)
    np.testing.assert_array_equal(media.timestamps, indices / 30)
    assert np.abs(gray_of(media.frames) - indices % 60 * GRAY_STEP).max() <= 2
    np.testing.assert_array_equal(
        video.measure(path, BUDGETS, GEOMETRY).timestamps, media.timestamps
    )


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("open_gop", [0, 1])
def test_a_transport_stream_that_begins_between_key_frames(tmp_path, codec, open_gop):
    """As a recording of a broadcast: what needs earlier frames is neither planned nor shown."""
    names = {"libx264": "x264-params", "libx265": "x265-params"}
    coding = {names[codec]: f"open-gop={open_gop}:scenecut=0"}
    whole = write_clip(tmp_path / "a.ts", 300, codec=codec, gop=60, coding=coding).read_bytes()
    path = tmp_path / "cut.ts"
    path.write_bytes(whole[len(whole) * 3 // 10 // 188 * 188 :])
    media = video.decode(path, BUDGETS, GEOMETRY)
    assert len(media.frames) == 12  # from frame 120 on
    assert abs(gray_of(media.frames)[0] - 120 * GRAY_STEP % 256) <= 2
    shape = video.measure(path, BUDGETS, GEOMETRY)
    np.testing.assert_array_equal(shape.timestamps, media.timestamps)


@pytest.mark.parametrize("first_ms", [-2000, 3_600_000, 95_000_000])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_time_begins_with_the_first_frame_that_is_shown(tmp_path, name, first_ms):
    path = write_clip(tmp_path / name, len(BUSY_MS), times_ms=[first_ms + time for time in BUSY_MS])
    media = video.decode(path, BUDGETS, GEOMETRY)
    hidden = 2 if first_ms < 0 and name == "a.mp4" else 0  # its edit list begins at 0
    assert media.timestamps[0] == 0
    assert media.timestamps[-1] == pytest.approx(13 - hidden, abs=0.002)
    assert gray_of(media.frames)[0] == pytest.approx(hidden * GRAY_STEP, abs=2)


def test_a_fragmented_file_is_planned_by_its_packets(tmp_path):
    """Its header counts the first fragment alone."""
    path = write_clip(tmp_path / "a.mp4", 300, movflags="frag_keyframe")
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 12
    assert video.read_header(path).frames == 300
    assert video.measure(path, BUDGETS, GEOMETRY).frames == 20
    check(path, np.arange(300) / 30)


def edited(path, begin, length, to):
    """Writes a copy of an mp4 whose edit list shows `length` of its time, from `begin` on."""
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12
    data[at : at + 4] = length.to_bytes(4)  # in units of the film, 1/1000 s
    data[at + 4 : at + 8] = begin.to_bytes(4)  # in units of the stream
    to.write_bytes(data)
    return to


@pytest.mark.parametrize(("begin_s", "length_s"), [(0, 1), (4, 6), (2.1, 0.9), (7.5, 1)])
def test_an_edit_list_is_planned_as_it_is_decoded(tmp_path, begin_s, length_s):
    whole = write_clip(tmp_path / "whole.mp4", 300, gop=30)
    with av.open(str(whole)) as container:
        units = container.streams.video[0].time_base.denominator
    path = edited(
        whole, round(begin_s * units) + units // 15, round(length_s * 1000), tmp_path / "cut.mp4"
    )
    media = video.decode(path, BUDGETS, GEOMETRY)
    assert len(media.frames) == max(4, 2 * int(length_s))
    shape = video.measure(path, BUDGETS, GEOMETRY)
    np.testing.assert_array_equal(shape.timestamps, media.timestamps)
    first = gray_of(media.frames)[0] / GRAY_STEP
    assert abs(first - round(begin_s * 30) % 64) <= 1


def test_an_index_of_constant_rate_is_enough(tmp_path, monkeypatch):
    for name, how in {
        "a.mp4": {},
        "b.mov": {"b_frames": 0},
        "c.mp4": {"movflags": "faststart"},
    }.items():
        path = write_clip(tmp_path / name, 90, **how)
        with open_video(path) as (container, stream):
            index, packets = (
                clocks.from_index(path, container, stream),
                clocks.from_packets(container, stream),
            )
        assert index.is_constant
        assert packets.is_constant
        np.testing.assert_array_equal(index.times, packets.times)
        assert index.fps == packets.fps
        with monkeypatch.context() as patch:
            patch.setattr(clocks, "from_packets", lambda *_: pytest.fail("read every packet"))
            assert video.measure(path, BUDGETS, GEOMETRY).frames == 6


def test_the_clock_by_hand():
    constant = clocks.of_times(np.array([5.0, 5.04, 5.07, 5.10]), 4, 30.0)  # a tick off
    assert constant.is_constant
    np.testing.assert_array_equal(constant.times, np.arange(4) / 30)
    wrong_header = clocks.of_times(np.arange(100) / 25, 100, 30.0)
    assert (wrong_header.is_constant, wrong_header.fps) == (False, pytest.approx(25.0))
    np.testing.assert_allclose(wrong_header.times, np.arange(100) / 25)
    for stored in (None, np.zeros(3)):  # no times at all
        assert clocks.of_times(stored, 3, 10.0).times.tolist() == [0, 0.1, 0.2]


def test_clips_of_a_varying_rate():
    slides = np.array([0.0, 10.0, 20.0, 20.5, 21.0, 21.5])

    def take(start, end):
        return sampling.take_by_times("v", slides, BUDGETS, start, end)

    assert take(None, None).indices.tolist() == [0, 1, 2, 3, 4, 5]
    assert take(None, None).sample_fps == pytest.approx(5 / 21.5)
    assert take(20.0, 21.5).indices.tolist() == [2, 3, 4, 5]
    assert take(20.0, 21.5).sample_fps == pytest.approx(2)
    assert take(12.0, 18.0).indices.tolist() == [1, 1]  # on display all the time
    assert take(9.0, 11.0).indices.tolist() == [1, 1]
    assert take(-5.0, 10.0).indices.tolist() == [0, 1]
    for start, end in ((30.0, None), (18.0, 12.0), (None, -1.0)):
        with pytest.raises(MediaError, match="no frame between"):
            take(start, end)
