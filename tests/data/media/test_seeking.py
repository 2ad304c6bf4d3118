"""Single frames of long videos: those of decoding everything, and few are decoded for them."""

import av
import numpy as np
import pytest
from clips import BUDGETS, GEOMETRY, GRAY_STEP, gray_of, write_clip

from evr1.data.media import clock as clocks
from evr1.data.media import sampling, seeking, video
from evr1.data.media.container import open_video

LONG, GOP = 400, 40
KINDS = {
    "b_frames.mp4": {},
    "plain.mp4": {"b_frames": 0},
    "a.mov": {},
    "fragmented.mp4": {"movflags": "frag_keyframe+empty_moov"},
    "b_frames.mkv": {},
    "plain.mkv": {"b_frames": 0},
    "b_frames.ts": {},
    "plain.ts": {"b_frames": 0},
    "hevc.mp4": {"codec": "libx265", "coding": {"x265-params": "log-level=none"}},
    "a.flv": {},
    "open.mp4": {"coding": {"x264-params": "open-gop=1:bframes=3:b-pyramid=normal"}},
    "open.ts": {"coding": {"x264-params": "open-gop=1:bframes=3:b-pyramid=normal"}},
}


@pytest.fixture
def counted(monkeypatch):
    """Counts the frames that are decoded by seeking, and in passes over the whole file."""
    count = {"seeking": 0, "pass": 0}

    def counting(name, generate):
        def frames(*args):
            for frame in generate(*args):
                count[name] += 1
                yield frame

        return frames

    monkeypatch.setattr(seeking, "decoded_frames", counting("seeking", seeking.decoded_frames))
    monkeypatch.setattr(video, "_frames", counting("pass", video._frames))
    return count


def numbers(media):
    """The number of each frame, modulo 64."""
    return np.round(gray_of(media.frames) / GRAY_STEP).astype(int).tolist()


def clock_of(path):
    with open_video(path) as (container, stream):
        return clocks.from_packets(container, stream)


def pass_over(path, monkeypatch, **clip):
    """What decoding every frame from the first on gives."""
    with monkeypatch.context() as patch:
        patch.setattr(seeking, "plan", lambda *_: [])
        patch.setattr(clocks, "from_header", lambda *_: None)
        return video.decode(path, BUDGETS, GEOMETRY, **clip)


def edited(path, first, frames, fps=30):
    """Changes an mp4's edit list in place: only so many frames from the first on are shown."""
    with av.open(str(path)) as container:
        units = container.streams.video[0].time_base.denominator
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12
    data[at : at + 4] = round(frames / fps * 1000).to_bytes(4)
    data[at + 4 : at + 8] = (round(first / fps * units) + units // 15).to_bytes(4)
    path.write_bytes(data)


@pytest.mark.parametrize("kind", KINDS)
def test_no_more_is_decoded_than_a_frame_needs(tmp_path, monkeypatch, counted, kind):
    path = write_clip(tmp_path / kind, LONG, gop=GOP, **KINDS[kind])
    clip = {"times": [1.5, 5.1, 9.0, 13.0]}  # frames 45, 153, 270, 390: 6, 34, 31, 31 from keys on
    media = video.decode(path, BUDGETS, GEOMETRY, **clip)
    runs = seeking.plan(clock_of(path), np.array([45, 153, 270, 390]))
    keys = clock_of(path).keys
    needed = sum(run.indices[-1] - keys[run.key] + 1 for run in runs)
    assert counted["pass"] == 0
    assert 0 < counted["seeking"] <= 1.05 * needed
    whole = pass_over(path, monkeypatch, **clip)
    np.testing.assert_array_equal(media.frames, whole.frames)
    np.testing.assert_array_equal(media.timestamps, whole.timestamps)
    assert numbers(media) == [45, 153 - 128, 270 - 256, 390 - 384]


def test_edit_lists_are_sought_by_their_packets(tmp_path, monkeypatch, counted):
    path = write_clip(tmp_path / "a.mp4", LONG, gop=GOP)
    edited(path, 95, 200)
    media = video.decode(path, BUDGETS, GEOMETRY, times=[0.5, 5.0])  # 110 and 245 of all
    assert counted["pass"] == 0
    assert counted["seeking"] <= 1.05 * (30 + 6)
    np.testing.assert_array_equal(
        media.frames, pass_over(path, monkeypatch, times=[0.5, 5.0]).frames
    )


def test_frames_that_no_other_needs_are_left_out(tmp_path, counted):
    coding = {"x264-params": "b-adapt=0:b-pyramid=none"}
    path = write_clip(tmp_path / "a.mp4", LONG, gop=200, coding=coding)
    video.decode(path, BUDGETS, GEOMETRY, times=[180 / 30, 380 / 30])
    assert counted["seeking"] < 0.5 * 2 * 181  # two of three are B-frames


def test_a_whole_mp4_of_constant_rate_is_not_read_to_its_end(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mp4", LONG, gop=GOP)
    with monkeypatch.context() as patch:
        patch.setattr(clocks, "from_packets", lambda *_: pytest.fail("read every packet"))
        for times in ([1.5, 9.0], np.arange(0, 12, 0.1).tolist()):  # jumps, and a pass
            media = video.decode(path, BUDGETS, GEOMETRY, times=times)
    assert len(media.frames) == 120


def test_a_header_that_packets_do_not_confirm_is_not_believed(tmp_path, monkeypatch):
    """Frames of even times of decoding and uneven times of showing, which only packets tell."""
    path = write_clip(tmp_path / "a.mp4", LONG, gop=GOP, b_frames=0, movflags="faststart")
    moved = tmp_path / "moved.mp4"
    with av.open(str(path)) as source, av.open(str(moved), "w") as file:
        stream = file.add_stream_from_template(source.streams.video[0])
        unit = round(1 / 30 / source.streams.video[0].time_base)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                packet.pts += unit * (3 * (packet.pts // unit // 100))  # a jump every 100 frames
                file.mux(packet)
    with open_video(moved) as (container, stream):
        header = clocks.from_header(moved, container, stream)
    media = video.decode(moved, BUDGETS, GEOMETRY, times=[1.0, 9.0, 13.0])
    whole = pass_over(moved, monkeypatch, times=[1.0, 9.0, 13.0])
    np.testing.assert_array_equal(media.frames, whole.frames)
    np.testing.assert_array_equal(media.timestamps, whole.timestamps)
    assert header is not None  # the index alone looks right


def test_a_damaged_key_frame_is_made_good_by_a_pass(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mp4", LONG, gop=GOP, size=(128, 192))
    with av.open(str(path)) as container:
        entries = list(container.streams.video[0].index_entries)
    data = bytearray(path.read_bytes())
    data[entries[240].pos : entries[240].pos + entries[240].size] = bytes(entries[240].size)
    path.write_bytes(data)
    for times in ([1.5, 9.0], [0.0, 6.6]):
        media = video.decode(path, BUDGETS, GEOMETRY, times=times)
        whole = pass_over(path, monkeypatch, times=times)
        assert media.frames.shape == whole.frames.shape
        assert (media.timestamps == whole.timestamps).all()


def test_seeking_is_used_only_where_it_pays(tmp_path):
    def runs(path, budgets):
        return seeking.plan(clock_of(path), sampling.sample_indices(120, 30.0, 2.0, budgets))

    assert runs(write_clip(tmp_path / "one.mp4", 120, gop=600), 8) == []  # one key frame
    assert runs(write_clip(tmp_path / "all.mp4", 120, gop=1), 8)
    dense = sampling.sample_indices(120, 30.0, 30.0, 120)
    assert seeking.plan(clock_of(tmp_path / "all.mp4"), dense) == []  # every frame


def test_a_key_frame_near_by_is_not_jumped_to():
    clock = clocks.Clock(np.arange(400) / 30, 30.0, True, np.arange(400), 400, range(0, 400, 40))
    runs = seeking.plan(clock, np.array([78, 83, 250]))
    assert [(run.key, run.indices) for run in runs] == [(1, [78, 83]), (6, [250])]


def test_a_demuxer_that_lands_anywhere_is_given_up(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mkv", LONG, gop=GOP)
    monkeypatch.setattr(seeking._Seeker, "_seek", lambda *_: iter(()))
    media = video.decode(path, BUDGETS, GEOMETRY, times=[1.5, 9.0])
    assert numbers(media) == [45, 270 - 256]
