"""Media that decode and may show nothing are counted and named, and used all the same."""

import json
import re

import av
import numpy as np
import pytest
from clips import BUDGETS, GEOMETRY, write_clip, write_image
from PIL import Image

from evr1.data import rows
from evr1.data.media import preprocess, remarks, shards
from evr1.data.media.decode import DecodePool, Job
from evr1.data.media.source import MediaSource, media_requests


def about(path, kind="video"):
    return Job(kind, str(path), BUDGETS, GEOMETRY).run().remarks


def write_frames(folder, frames):
    """A folder of images that are one video."""
    folder.mkdir()
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{i}.png")
    return folder


def test_what_is_said_of_videos(tmp_path):
    assert about(write_clip(tmp_path / "a.mp4", 30)) == ()
    assert about(write_clip(tmp_path / "one.mp4", 1)) == (remarks.STILL,)
    noise = np.random.default_rng(0).integers(0, 200, (64, 96, 3)).astype(np.uint8)
    for name, frames, expected in (
        ("moves", [noise, noise, noise, noise + 9], ()),
        ("stays", [noise, noise + 1, noise, noise + 2], (remarks.STILL,)),
        ("black", [np.zeros_like(noise)] * 4, (remarks.PLAIN,)),
        ("depth", [noise // 20] * 4, (remarks.PLAIN,)),  # of 16 bits, of which 8 are taken
    ):
        folder = write_frames(tmp_path / name, frames)
        job = Job("video", str(folder), BUDGETS, GEOMETRY, frames_per_s=2.0)
        assert job.run().remarks == expected


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (np.arange(64 * 64, dtype=np.uint16) // 17, ()),  # up to 240
        (np.arange(64 * 64, dtype=np.uint16), (remarks.CLIPPED,)),
        (np.arange(64 * 64, dtype=np.uint16) + 1000, (remarks.CLIPPED, remarks.PLAIN)),
        (np.linspace(0, 1, 64 * 64, dtype=np.float32), (remarks.PLAIN,)),
        (np.linspace(-100, 200, 64 * 64, dtype=np.float32), (remarks.CLIPPED,)),
    ],
)
def test_what_is_said_of_deep_images(tmp_path, levels, expected):
    Image.fromarray(levels.reshape(64, 64)).save(tmp_path / "a.tiff")
    assert about(tmp_path / "a.tiff", "image") == expected


def cut(path, share=0.5):
    """A copy of the first part of a file."""
    part = path.with_name(f"cut_{path.name}")
    part.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return part


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("a.mkv", {}),
        ("a.webm", {"codec": "libvpx"}),
        ("a.mkv", {"times_ms": [33 * i if i < 99 else 100 * i for i in range(150)]}),
        ("a.mp4", {"movflags": "faststart", "gop": 1}),
        ("a.avi", {"codec": "mpeg4", "b_frames": 0}),
    ],
)
def test_a_file_that_was_cut_off_is_named_with_where_it_ends(tmp_path, name, how):
    path = write_clip(tmp_path / name, 150, **how)
    assert about(path) == ()
    assert about(cut(path, 0.99)) == ()  # next to nothing is lost
    found = about(cut(path, 0.7))
    stated = "14.9|15.0" if "times_ms" in how else "4.9|5.0"
    assert re.fullmatch(rf"cut off: ends at [23]?\d\.\d s of ({stated}) s", found[0])
    assert found[1:] in ((), (remarks.DAMAGED,))  # the last packet is half there


def test_whole_files_that_state_more_than_their_video_are_not_cut_off(tmp_path):
    source = write_clip(tmp_path / "a.mp4", 90)
    with (
        av.open(str(source)) as read,
        av.open(str(tmp_path / "sound.mkv"), "w") as write,
    ):  # a copy of the packets that begins at 20 s, with 9 s of sound more
        video = write.add_stream_from_template(read.streams.video[0])
        sound = write.add_stream("pcm_s16le", rate=8000, layout="mono")
        for packet in read.demux(video=0):
            if packet.pts is not None:
                late = int(20 / packet.time_base)
                packet.stream, packet.pts, packet.dts = video, packet.pts + late, packet.dts + late
                write.mux(packet)
        for second in range(20, 32):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
            frame.rate, frame.pts = 8000, 8000 * second
            write.mux(sound.encode(frame))
        write.mux(sound.encode())
    assert about(tmp_path / "sound.mkv") == ()
    assert about(cut(tmp_path / "sound.mkv", 0.9)) == ()  # of the sound alone


def test_a_fragmented_file_of_no_stated_length_is_named_where_a_fragment_is_cut(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 150, movflags="frag_keyframe+empty_moov")
    assert about(path) == ()
    (remark,) = about(cut(path, 0.7))
    assert re.fullmatch(r"cut off: ends at 3\.\d s, amid a fragment", remark)
    path = write_clip(tmp_path / "b.mp4", 150, movflags="dash+global_sidx")
    assert about(path) == ()
    (remark,) = about(cut(path, 0.7))
    assert re.fullmatch(r"cut off: ends at 3\.\d s of 5\.[01] s", remark)


def test_an_avi_that_nobody_closed_is_believed(tmp_path):
    path = write_clip(tmp_path / "a.avi", 90, codec="mpeg4", b_frames=0)
    data = path.read_bytes()
    path.write_bytes(data[:4] + bytes(4) + data[8:])
    assert about(cut(path, 0.8)) == ()


def test_a_file_that_states_no_duration_is_believed(tmp_path):
    path = write_clip(tmp_path / "a.mkv", 90, muxer={"live": "1"})
    assert about(cut(path)) == about(path) == ()


def test_preprocessing_and_planning_name_them(tmp_path):
    write_clip(tmp_path / "moves.mp4", 30)
    for i in range(7):
        write_clip(tmp_path / f"still{i}.mp4", 1, b_frames=0, gop=i + 1)
    write_image(tmp_path / "plain.png")
    names = ["moves.mp4", *(f"still{i}.mp4" for i in range(7))]
    fields = [{"videos": [name]} for name in names] + [{"images": ["plain.png"]}]
    data = [
        rows.parse_row(
            {"problem": "q", "answer": "a", "problem_type": "math", **f}, i, f"r:{i + 1}"
        )
        for i, f in enumerate(fields)
    ]
    out = str(tmp_path / "shards")
    expected = [
        "warning: every frame the same: 7 of 9 media: still0.mp4 (r:2), still1.mp4 (r:3), "
        "still2.mp4 (r:4), still3.mp4 (r:5), still4.mp4 (r:6) and 2 more",
        "warning: one plain color: 1 of 9 media: plain.png (r:9)",
    ]
    for cached in (0, 9):  # a second run knows them from the first
        summary = preprocess.preprocess(
            data, out, budgets=BUDGETS, geometry=GEOMETRY, media_dir=str(tmp_path), workers=1
        )
        assert (summary.cached, summary.failed) == (cached, [])
        assert summary.warnings() == expected
    with DecodePool(1, 60.0) as pool:
        how = {"budgets": BUDGETS, "geometry": GEOMETRY, "pool": pool, "media_dir": str(tmp_path)}
        source = MediaSource(shards=out, **how)
        requests = [request for row in data for request in media_requests(row)]
        for request in requests:
            source.size(request)
        assert set(source.remarked) == set(requests[1:])
        decoding = MediaSource(**how)
        decoding.load(requests[0])
        decoding.load(requests[8])
        assert decoding.remarked == {requests[8]: (remarks.PLAIN,)}
        assert decoding.remarks(requests[8]) == (remarks.PLAIN,)
        assert decoding.remarks(requests[0]) == ()


def test_a_damaged_table_is_named_by_line(tmp_path):
    (tmp_path / remarks.FILE).write_text(json.dumps({"key": "a"}) + "\n")
    with pytest.raises(ValueError, match=r"remarks.jsonl:1: not a remark; delete the line"):
        remarks.RemarkTable(tmp_path)
    assert shards.QUARANTINE != remarks.FILE
