"""Frames in fewer bytes: the same ones without loss, nearly the same as JPEG, and known as such."""

import dataclasses
import json

import numpy as np
import pytest
from clips import GEOMETRY
from PIL import Image

from evr1.cli import preprocess_videos
from evr1.config import checks
from evr1.data import rows
from evr1.data.media import parts, preprocess, storage, tfds_format, verify
from evr1.data.media.decode import DecodePool
from evr1.data.media.shards import ShardStore, ShardWriter
from evr1.data.media.source import MediaSource, media_requests
from evr1.data.records import Budgets, Media

BUDGETS = Budgets(video_max_frames=4)


def smooth(frames=3, height=64, width=96):
    """Gradients that move, uint8[T, H, W, 3]."""
    t, y, x = np.meshgrid(np.arange(frames), np.arange(height), np.arange(width), indexing="ij")
    return np.stack([x + 9 * t, y + 5 * t, (x + y) // 2], axis=-1).astype(np.uint8)


def medium(frames):
    return Media(frames, np.arange(len(frames)) / 2, is_video=True, sample_fps=2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    names = [f"{n}.png" for n in range(3)]
    for name, frame in zip(names, smooth(), strict=True):
        Image.fromarray(frame).save(root / name)
    base = {"problem": "?", "answer": "1", "problem_type": "numerical"}
    (root / "rows.jsonl").write_text("\n".join(json.dumps({**base, "images": [n]}) for n in names))
    return root


def fill(folder, out, **how):
    return preprocess.preprocess(
        rows.load_rows(folder / "rows.jsonl"), str(out), budgets=BUDGETS, geometry=GEOMETRY,
        media_dir=str(folder), workers=2, **how,
    )  # fmt: skip


def test_lossless_frames_are_the_same_in_fewer_bytes():
    frames = smooth()
    encoded = storage.encode(frames, storage.LOSSLESS)
    assert sum(map(len, encoded)) < frames.nbytes / 2
    decoded = storage.decode(encoded, frames.shape, storage.LOSSLESS)
    np.testing.assert_array_equal(decoded, frames)
    assert storage.psnr(frames, decoded) == float("inf")


def test_jpeg_frames_are_nearly_the_same():
    frames = smooth()
    decoded = storage.decode(storage.encode(frames, storage.JPEG), frames.shape, storage.JPEG)
    error = np.abs(decoded.astype(int) - frames)
    assert 0 < error.max() < 12
    square = np.square(error).mean()
    assert storage.psnr(frames, decoded) == pytest.approx(10 * np.log10(255**2 / square))


def test_colors_keep_their_size():
    """Columns of red and blue by turns would be purple with colors at half the size."""
    frames = np.zeros((1, 32, 32, 3), np.uint8)
    frames[:, :, ::2, 0] = frames[:, :, 1::2, 2] = 200
    decoded = storage.decode(storage.encode(frames, storage.JPEG), frames.shape, storage.JPEG)
    assert np.abs(decoded.astype(int) - frames).max() < 40


@pytest.mark.parametrize("how", [storage.JPEG, storage.LOSSLESS])
def test_a_record_says_what_tfds_would(how):
    media = medium(smooth())
    record = tfds_format.serialize("k" * 32, media, "a.mp4", how)
    got = tfds_format.media_features(how).deserialize_example_np(record)
    assert (got["storage"], got["path"], list(got["shape"])) == (
        how.encode(), b"a.mp4", [3, 64, 96, 3],
    )  # fmt: skip
    again = storage.decode(list(got["encoded"]), got["shape"], how)
    key, parsed = tfds_format.parse(record)
    np.testing.assert_array_equal(parsed.frames, again)
    fields = {f: got[f] for f in ("is_video", "sample_fps", "timestamps", "key", "path")}
    fields |= {"encoded": list(got["encoded"]), "psnr": got["psnr"]}
    fields |= {"shape": got["shape"], "storage": how}
    assert len(tfds_format.media_features(how).serialize_example(fields)) == len(record)
    assert (key, parsed.sample_fps, parsed.psnr) == ("k" * 32, 2.0, float(got["psnr"]))
    np.testing.assert_array_equal(parsed.timestamps, media.timestamps)
    _, outline = tfds_format.parse(record, is_outline=True)
    assert (outline.frames.shape, outline.psnr) == ((3, 64, 96, 0), parsed.psnr)


def test_a_directory_keeps_its_way(tmp_path):
    with ShardWriter(tmp_path, storage=storage.JPEG) as writer:
        writer.add("a" * 32, medium(smooth()), "a.mp4")
    with ShardWriter(tmp_path) as writer:
        assert writer.storage == storage.JPEG
    with pytest.raises(ValueError, match=r"keeps pixels as jpeg, data\.storage=raw; give another"):
        ShardWriter(tmp_path, storage=storage.RAW)
    read = ShardStore(tmp_path).read("a" * 32)
    assert 30 < read.psnr < 70
    assert verify.verify(tmp_path).faults == []


def test_raw_shards_do_not_become_others(tmp_path):
    with ShardWriter(tmp_path) as writer:
        writer.add("a" * 32, medium(smooth()), "a.mp4")
    with pytest.raises(ValueError, match=r"keeps pixels as raw, data\.storage=jpeg"):
        ShardWriter(tmp_path, storage=storage.JPEG)


def test_of_processes_that_start_together_one_decides(tmp_path):
    """Both look before there is a shard; raw is a decision, too."""
    for first, second in ((storage.RAW, storage.JPEG), (storage.JPEG, storage.LOSSLESS)):
        root = tmp_path / first
        root.mkdir()
        assert storage.agree(root, first, is_new=True) == first
        with pytest.raises(ValueError, match=f"keeps pixels as {first}, data.storage={second}"):
            storage.agree(root, second, is_new=True)
        assert storage.agree(root, "", is_new=True) == first


def test_a_damaged_manifest_is_named(tmp_path):
    (tmp_path / storage.MANIFEST).write_text('{"storage": "gif"}')
    with pytest.raises(ValueError, match=r"storage\.json: not .*raw, jpeg, lossless"):
        ShardWriter(tmp_path)


def test_a_lost_index_is_rebuilt(tmp_path):
    with ShardWriter(tmp_path, storage=storage.LOSSLESS) as writer:
        writer.add("a" * 32, medium(smooth()), "a.mp4")
    (tmp_path / "index-00000.npz").unlink()
    ShardWriter(tmp_path).close()
    np.testing.assert_array_equal(ShardStore(tmp_path).read("a" * 32).frames, smooth())


def test_a_frame_of_another_kind_is_damage():
    frames = smooth()
    encoded = storage.encode(frames, storage.JPEG)
    with pytest.raises(ValueError, match="a frame of"):
        storage.decode(encoded, (3, 32, 96, 3), storage.JPEG)
    with pytest.raises(ValueError, match="2 frames, 3 in the record"):
        storage.decode(encoded[:2], frames.shape, storage.JPEG)
    with pytest.raises(OSError, match="cannot identify"):
        storage.decode(encoded, frames.shape, storage.LOSSLESS)


@pytest.mark.parametrize("num_shards", [0, 2])
def test_sources_find_what_was_kept_with_a_loss(folder, tmp_path, num_shards):
    summary = fill(folder, tmp_path, storage=storage.JPEG, num_shards=num_shards)
    assert (summary.images, len(summary.psnr)) == (3, 3)
    assert 0 < summary.record_bytes < summary.pixel_bytes
    assert "dB in the mean" in summary.line()
    assert fill(folder, tmp_path).cached == 3
    requests = [media_requests(row)[0] for row in rows.load_rows(folder / "rows.jsonl")]
    how = {"budgets": BUDGETS, "geometry": GEOMETRY, "media_dir": str(folder)}
    with DecodePool(1, 60.0) as pool:
        only = MediaSource(pool=pool, shards=str(tmp_path), mode="preprocessed_only", **how)
        kept = [only.load(request) for request in requests]
        assert only.psnr == pytest.approx(sum(summary.psnr) / 3)
        plain = MediaSource(pool=pool, **how)
        for media, request in zip(kept, requests, strict=True):
            frames = plain.load(request).frames
            assert storage.psnr(frames, media.frames) == pytest.approx(media.psnr)
        assert plain.psnr == 0.0


def test_a_loss_changes_the_key(folder, tmp_path):
    fill(folder, tmp_path / "raw")
    fill(folder, tmp_path / "jpeg", storage=storage.JPEG)
    fill(folder, tmp_path / "lossless", storage=storage.LOSSLESS)
    keys = {n: set(ShardStore(tmp_path / n).keys()) for n in storage.NAMES}
    assert keys["raw"] == keys["lossless"]
    assert not keys["raw"] & keys["jpeg"]


def test_the_command_writes_and_the_config_knows_each_way(folder, tmp_path, capsys):
    command = ["--data", str(folder / "rows.jsonl"), "--media_dir", str(folder), "--max_frames"]
    assert preprocess_videos.main([*command, "4", "--out", str(tmp_path), "--storage=jpeg"]) == 0
    assert "dB in the mean" in " ".join(capsys.readouterr().out.split())
    assert preprocess_videos.main([*command, "4", "--out", str(tmp_path), "--storage=raw"]) == 1
    assert "keeps pixels as jpeg, --storage=raw; give another" in capsys.readouterr().err


def test_parts_agree_with_what_is_there(tmp_path):
    parts.agree(tmp_path, 8, 2)
    with parts.PartWriter(tmp_path, 2, parts.Part(0, 2), storage.LOSSLESS):
        pass
    with parts.PartWriter(tmp_path, 2, parts.Part(1, 2)) as writer:
        assert writer.storage == storage.LOSSLESS


def test_the_pixels_of_a_medium_say_that_nothing_was_lost():
    assert dataclasses.replace(medium(smooth())).psnr == float("inf")
    assert checks.choice("data.storage", "raw", ("", *storage.NAMES)) is None
