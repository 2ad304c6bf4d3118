"""A folder of images is the video that holds them."""

import itertools

import av
import numpy as np
import pytest
from clips import BUDGETS, GEOMETRY
from PIL import Image

from evr1.data.errors import MediaError
from evr1.data.media import frames, video
from evr1.data.media.decode import DecodePool, Job
from evr1.data.media.preprocess import preprocess
from evr1.data.media.quarantine import Quarantine
from evr1.data.media.requests import Opener, media_requests
from evr1.data.media.shards import ShardWriter
from evr1.data.media.source import MediaSource, Request
from evr1.data.records import Budgets
from evr1.data.rows import parse_row

FPS = 3
FINE = Budgets(video_fps=3.0, video_max_frames=64, video_max_pixels=48 * 80)
NAMES = ("{:05}.png", "{}.png", "frame_{}.PNG")


def pictures(count, size=(64, 96)):
    """uint8[T, H, W, 3] of noise, so that no two are alike."""
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, *size, 3), np.uint8)


def write_folder(path, images, name="{:05}.png"):
    path.mkdir()
    for number, image in enumerate(images, 1):
        Image.fromarray(image).save(path / name.format(number))
    return path


def write_video(path, images, fps=FPS):
    """The same frames in a file that loses nothing."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=fps)
        stream.width, stream.height, stream.pix_fmt = images.shape[2], images.shape[1], "rgb24"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


CLIPS = [(None, None), (1.0, 3.4), (0.4, None), (None, 2.0), (2.0, 99.0), (1.0, 1.0)]


@pytest.mark.parametrize(("count", "name"), [(31, NAMES[0]), (120, NAMES[1]), (2, NAMES[2])])
def test_a_folder_gives_what_a_video_of_its_images_gives(tmp_path, count, name):
    images = pictures(count)
    folder = write_folder(tmp_path / "a", images, name)
    file = write_video(tmp_path / "a.mov", images)
    clips = CLIPS if count > 9 else CLIPS[:1]
    for budgets, clip in itertools.product((BUDGETS, FINE, Budgets()), clips):
        ours = frames.decode(folder, FPS, budgets, GEOMETRY, *clip)
        theirs = video.decode(file, budgets, GEOMETRY, *clip)
        np.testing.assert_array_equal(ours.frames, theirs.frames)
        np.testing.assert_array_equal(ours.timestamps, theirs.timestamps)
        assert (ours.is_video, ours.sample_fps) == (True, theirs.sample_fps)
        shape = frames.measure(folder, FPS, budgets, GEOMETRY, *clip)
        assert (shape.frames, shape.height, shape.width, 3) == ours.frames.shape
        np.testing.assert_array_equal(shape.timestamps, ours.timestamps)
        assert shape.sample_fps == ours.sample_fps


def test_the_bounds_of_a_clip_come_before_the_sampling(tmp_path):
    folder = write_folder(tmp_path / "a", pictures(30))
    media = frames.decode(folder, FPS, Budgets(), GEOMETRY, 2.0, 4.0)
    assert (media.timestamps * FPS).round().tolist() == [6, 8, 10, 12]  # 2 a second of 7


def test_one_image_is_given_twice(tmp_path):
    media = frames.decode(write_folder(tmp_path / "a", pictures(1)), FPS, BUDGETS, GEOMETRY)
    assert media.timestamps.tolist() == [0.0, 0.0]
    np.testing.assert_array_equal(media.frames[0], media.frames[1])


def test_the_images_of_given_times_are_those_that_were_sampled(tmp_path):
    folder = write_folder(tmp_path / "a", pictures(20))
    sampled = frames.decode(folder, FPS, BUDGETS, GEOMETRY, 1.0, 5.0)
    stamps = (sampled.timestamps[1::2] + 0.01).tolist()
    media = frames.decode(folder, FPS, BUDGETS, GEOMETRY, times=stamps)
    np.testing.assert_array_equal(media.frames, sampled.frames[1::2])
    np.testing.assert_array_equal(media.timestamps, sampled.timestamps[1::2])


def test_only_visible_images_are_frames(tmp_path):
    folder = write_folder(tmp_path / "a", pictures(4))
    plain = frames.decode(folder, FPS, BUDGETS, GEOMETRY)
    for name in ("._00001.png", "Thumbs.db", "notes.txt"):
        (folder / name).write_bytes(b"no image")
    (folder / "00000.png").mkdir()
    media = frames.decode(folder, FPS, BUDGETS, GEOMETRY)
    np.testing.assert_array_equal(media.frames, plain.frames)


def test_images_that_are_not_taken_are_not_looked_at(tmp_path):
    folder = write_folder(tmp_path / "a", pictures(9))
    clean = frames.decode(folder, FPS, BUDGETS, GEOMETRY)  # 6 of 9
    (folder / "00002.png").write_bytes(b"no image")
    assert 1 not in (clean.timestamps * FPS).round()
    np.testing.assert_array_equal(
        frames.decode(folder, FPS, BUDGETS, GEOMETRY).frames, clean.frames
    )


def damage(folder, fault):
    """Damages a folder of six images, all of which are taken."""
    if fault == "broken":
        whole = (folder / "00003.png").read_bytes()
        (folder / "00003.png").write_bytes(whole[:2000])
    elif fault == "text":
        (folder / "00003.png").write_text("no image")
    elif fault == "mixed":
        Image.new("RGB", (40, 30)).save(folder / "00003.png")
    elif fault == "empty":
        for file in folder.iterdir():
            file.unlink()
        (folder / "notes.txt").write_text("no image")
    return folder


BAD = [  # fault, kind, message, whether a measurement tells it
    ("text", "undecodable", "00003.png: not a usable image", True),
    ("broken", "undecodable", "00003.png: not a usable image", False),
    ("mixed", "undecodable", "mixed sizes: 00001.png has 96x64, 00003.png has 40x30", True),
    ("empty", "empty", "the folder holds no .bmp, .jpeg, .jpg, .png, .webp", True),
]


@pytest.mark.parametrize(("fault", "kind", "message", "is_measured"), BAD)
def test_bad_folders_are_typed(tmp_path, fault, kind, message, is_measured):
    folder = damage(write_folder(tmp_path / "a", pictures(6)), fault)
    for read in (frames.decode, *([frames.measure] if is_measured else [])):
        with pytest.raises(MediaError, match=message) as error:
            read(folder, FPS, FINE, GEOMETRY)
        assert error.value.kind == kind
        assert error.value.path == str(folder)
        assert "\n" not in str(error.value)


def test_no_folder_and_no_frame_within_the_bounds(tmp_path):
    folder = write_folder(tmp_path / "a", pictures(6))
    for path, clip, kind, message in (
        (tmp_path / "none", (), "missing", "no such folder of frames"),
        (folder / "00001.png", (), "undecodable", "cannot be read as a folder of frames"),
        (
            folder,
            (2.0, None),
            "clip",
            "no frame between 2 s and the end; the last one is at 1.67 s",
        ),
        (folder, (1.5, 1.0), "clip", "no frame between 1.5 s and 1 s"),
    ):
        for read in (frames.decode, frames.measure):
            with pytest.raises(MediaError, match=message) as error:
                read(path, FPS, FINE, GEOMETRY, *clip)
            assert error.value.kind == kind


def test_children_decode_folders(tmp_path):
    folder = write_folder(tmp_path / "a", pictures(12))
    job = Job("video", str(folder), FINE, GEOMETRY, 1.0, 3.0, frames_per_s=FPS)
    assert Job.from_json(job.to_json()) == job
    near = frames.decode(folder, FPS, FINE, GEOMETRY, 1.0, 3.0)
    with DecodePool(1, 60.0, quarantine=Quarantine(tmp_path / "quarantine.jsonl")) as pool:
        np.testing.assert_array_equal(pool.decode(job).frames, near.frames)
        good = (folder / "00006.png").read_bytes()
        (folder / "00006.png").write_text("no image")
        for reason in ("00006.png: not a usable image", "quarantine.jsonl"):  # the second time
            with pytest.raises(MediaError, match=reason):
                pool.decode(job)
        (folder / "00006.png").write_bytes(good)  # it has changed
        np.testing.assert_array_equal(pool.decode(job).frames, near.frames)


def test_a_source_decodes_folders_whatever_is_in_its_shards(tmp_path):
    folder = write_folder(tmp_path / "a", pictures(12))
    with ShardWriter(tmp_path / "shards"):
        pass
    near = frames.decode(folder, FPS, BUDGETS, GEOMETRY, 1.0, 3.0)
    request = Request("video", "a", 1.0, 3.0, frames_per_s=FPS)
    with DecodePool(1, 60.0) as pool:
        how = {"budgets": BUDGETS, "geometry": GEOMETRY, "pool": pool, "media_dir": str(tmp_path)}
        source = MediaSource(**how, shards=str(tmp_path / "shards"))
        assert list(source.size(request).timestamps) == near.timestamps.tolist()
        np.testing.assert_array_equal(source.load(request).frames, near.frames)
        assert source.count_cached([request]) == 0
        with pytest.raises(MediaError, match="cannot be opened"):
            source.load(Request("video", "a"))
        with pytest.raises(MediaError, match="a folder of pictures without a rate"):
            MediaSource(**how).load(Request("video", "a"))
        only = MediaSource(**how, shards=str(tmp_path / "shards"), mode="preprocessed_only")
        with pytest.raises(MediaError, match="not in .* with these budgets") as error:
            only.load(request)
        assert error.value.kind == "uncached"


def listed(folder, count):
    """The first pictures of a folder, as a row lists them."""
    return tuple(str(path) for path in frames.images_of(folder)[:count])


@pytest.mark.parametrize(
    ("count", "fps", "seconds"),
    [
        (4, 2.0, [0.0, 0.5, 1.0, 1.5]),
        (3, 2.0, [0.0, 0.5, 1.0, 1.5]),  # the last one twice, as qwen-vl-utils fills up
        (1, 0.5, [0.0, 2.0]),
        (6, 30.0, [i / 30 for i in range(6)]),  # none is left out: somebody has chosen them
    ],
)
def test_a_list_gives_all_of_its_images(tmp_path, count, fps, seconds):
    images = pictures(count)
    names = listed(write_folder(tmp_path / "a", images), count)
    media = frames.decode(names[0], fps, Budgets(), GEOMETRY, listed=names)
    np.testing.assert_allclose(media.timestamps, seconds)
    assert media.sample_fps == fps
    shape = frames.measure(names[0], fps, Budgets(), GEOMETRY, listed=names)
    assert (shape.frames, shape.height, shape.width, 3) == media.frames.shape
    np.testing.assert_array_equal(shape.timestamps, media.timestamps)
    if count % 2:
        np.testing.assert_array_equal(media.frames[-1], media.frames[-2])


def test_the_times_of_images_may_be_given(tmp_path):
    names = listed(write_folder(tmp_path / "a", pictures(5)), 5)
    stamps = (0.0, 1.0, 7.5, 8.0, 20.0)
    how = {"listed": names, "stamps": stamps}
    media = frames.decode(names[0], None, Budgets(), GEOMETRY, **how)
    assert media.timestamps.tolist() == [*stamps, 20.0]
    clip = frames.decode(names[0], None, Budgets(), GEOMETRY, 1.0, 8.0, **how)
    assert clip.timestamps.tolist() == [1.0, 7.5, 8.0, 8.0]
    few = frames.decode(names[0], None, Budgets(video_max_frames=2), GEOMETRY, **how)
    assert few.timestamps.tolist() == [0.0, 20.0]
    with pytest.raises(MediaError, match="no frame between 9 s and 10 s"):
        frames.decode(names[0], None, Budgets(), GEOMETRY, 9.0, 10.0, **how)
    folder = frames.decode(tmp_path / "a", None, Budgets(), GEOMETRY, stamps=stamps)
    np.testing.assert_array_equal(folder.frames, media.frames)
    with pytest.raises(MediaError, match="5 pictures and 2 times; give one for each"):
        frames.decode(tmp_path / "a", None, Budgets(), GEOMETRY, stamps=(0.0, 1.0))


def requests_of(videos, **fields):
    row = {"problem": "q", "answer": "a", "problem_type": "math", "videos": videos, **fields}
    return media_requests(parse_row(row, 0, "f:1"))


def test_rows_name_lists_and_folders_and_preprocessing_keeps_them(tmp_path):
    write_folder(tmp_path / "a", pictures(5))
    names = [f"a/{i:05}.png" for i in range(1, 6)]
    [of_list] = requests_of([names], fps=2.0)
    [of_folder] = requests_of(["a"], fps=3)
    [timed] = requests_of(["a"], times=[0, 1, 2, 3, 9])
    wanted = {of_list: [0, 0.5, 1, 1.5, 2, 2.5], of_folder: [0, 1 / 3, 1, 4 / 3]}
    wanted[timed] = [0, 1, 2, 3, 9, 9]
    row = {"problem": "q", "answer": "a", "problem_type": "math"}
    rows = [
        parse_row(row | more, i, f"f:{i}")
        for i, more in enumerate(
            ({"videos": [names], "fps": 2.0}, {"videos": "a", "fps": 3},
             {"videos": "a", "times": [0, 1, 2, 3, 9]})
        )
    ]  # fmt: skip
    how = {"budgets": Budgets(), "geometry": GEOMETRY, "media_dir": str(tmp_path)}
    shards = str(tmp_path / "shards")
    assert preprocess(rows, shards, workers=1, **how).videos == 3
    assert preprocess(rows, shards, workers=1, **how).cached == 3
    with DecodePool(1, 60.0) as pool:
        live = MediaSource(**how, pool=pool)
        kept = MediaSource(**how, pool=pool, shards=shards, mode="preprocessed_only")
        for request, seconds in wanted.items():
            media = live.load(request)
            np.testing.assert_allclose(media.timestamps, seconds)
            assert list(live.size(request).timestamps) == media.timestamps.tolist()
            np.testing.assert_array_equal(kept.load(request).frames, media.frames)
        [bare] = requests_of(["a"])
        with pytest.raises(MediaError, match="a folder of pictures without a rate; add fps"):
            live.load(bare)


def test_a_broken_frame_of_a_list_is_named_and_keeps_no_picture_out(tmp_path):
    folder = write_folder(tmp_path / "a", pictures(3))
    (folder / "00002.png").write_bytes(b"no picture")
    [request] = requests_of([[f"a/{i:05}.png" for i in (1, 2, 3)]], fps=1)
    quarantine = Quarantine(tmp_path / "q.jsonl")
    with DecodePool(1, 60.0, quarantine=quarantine) as pool:
        how = {"budgets": BUDGETS, "geometry": GEOMETRY, "pool": pool, "media_dir": str(tmp_path)}
        source = MediaSource(**how)
        with pytest.raises(MediaError, match="00002.png: "):
            source.load(request)
        assert source.load(Request("image", "a/00001.png")).frames.shape[0] == 1
    assert len(quarantine) == 0


def test_a_row_may_limit_its_own_media(tmp_path):
    images = pictures(30, (64, 96))
    write_video(tmp_path / "a.mov", images, fps=10)
    limits = [({"fps": 4}, 12), ({"nframes": 6}, 6), ({"max_frames": 2}, 2), ({"nframes": 99}, 30)]
    with DecodePool(1, 60.0) as pool:
        budgets = Budgets(video_max_pixels=48 * 80, video_min_pixels=1024)
        how = {"budgets": budgets, "geometry": GEOMETRY, "pool": pool, "media_dir": str(tmp_path)}
        source = MediaSource(**how)
        for fields, count in limits:
            [request] = requests_of(["a.mov"], **fields)
            assert len(source.load(request).frames) == count, fields
            assert len(source.size(request).timestamps) == count
        [large] = requests_of([{"video": "a.mov", "min_pixels": 64 * 96, "max_pixels": 64 * 96}])
        assert source.load(large).frames.shape[1:3] == (64, 96)
        [over] = requests_of(["a.mov"], min_pixels=64 * 96)  # over the run's most: it gives way
        assert source.load(over).frames.shape[1:3] == (64, 96)


def test_a_folder_is_no_image(tmp_path):
    folder = write_folder(tmp_path / "a", pictures(3))
    opener = Opener(str(tmp_path), BUDGETS, GEOMETRY)
    with pytest.raises(
        MediaError, match="a folder; give the paths of images in it; correct the row"
    ):
        opener.job(Request("image", folder.name))
