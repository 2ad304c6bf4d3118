import dataclasses
import json
import subprocess
import sys
import threading
from concurrent import futures

import numpy as np
import pytest
from clips import BUDGETS, GEOMETRY, CountingProcessor, write_clip, write_image
from PIL import Image
from repo import ROOT

from evr1.data import loader, rows
from evr1.data.media.decode import DecodePool
from evr1.data.media.preprocess import preprocess
from evr1.data.media.quarantine import Quarantine
from evr1.data.media.shards import ShardStore
from evr1.data.media.source import MediaSource, media_requests
from evr1.data.share import Share

TOOL = ROOT / "tools" / "preprocess_videos.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six images, of gray 10, 20, ..., and one clip."""
    root = tmp_path_factory.mktemp("media")
    for n in range(1, 7):
        write_image(root / f"{n}.png", gray=10 * n)
    write_clip(root / "clip.mp4", 30)
    return root


@pytest.fixture(scope="module")
def pool():
    with DecodePool(2, 30.0) as pool:
        yield pool


def make_rows(*names, **fields):
    made = []
    for i, name in enumerate(names):
        kind = "videos" if name.endswith("mp4") else "images"
        row = {"problem": "q", "answer": "a", "problem_type": "math", "problem_id": i, kind: name}
        made.append(rows.parse_row(row | fields, i, f"rows.jsonl:{i + 1}"))
    return made


GRAYS = [f"{n}.png" for n in range(1, 7)]


def make(source_rows, folder, pool, **options):
    given = {"threads": 2, "groups": 2, "seed": 1}
    split = {k: options.pop(k) for k in ("shards", "mode") if k in options}
    source = MediaSource(
        budgets=BUDGETS, geometry=GEOMETRY, pool=pool, media_dir=str(folder), **split
    )
    return loader.Loader(source_rows, CountingProcessor(), source, **given | options)


def write_cut_image(path):
    """Its header is whole, its pixels are not."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:60_000])


def tokens(batch):
    return [example.tokens.tolist() for example in batch]


def test_one_epoch_in_file_order(folder, pool):
    with make(make_rows(*GRAYS[:5]), folder, pool, shuffle=False, epochs=1) as batches:
        assert [tokens(b) for b in batches] == [[[10], [20]], [[30], [40]], [[50]]]


def test_every_epoch_has_every_row_in_another_order(folder, pool):
    with make(make_rows(*GRAYS), folder, pool, groups=6) as batches:
        epochs = [tokens(next(batches)) for _ in range(3)]
    assert all(sorted(epoch) == [[10 * n] for n in range(1, 7)] for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    with make(make_rows(*GRAYS), folder, pool, groups=6) as batches:
        assert [tokens(next(batches)) for _ in range(3)] == epochs
    with make(make_rows(*GRAYS), folder, pool, groups=6, seed=2) as batches:
        assert tokens(next(batches)) != epochs[0]


def read_together(count, batches, make_one):
    """What `count` hosts get: of each batch the tokens, each example from the host that has it."""
    told = [[] for _ in range(count)]
    turn = threading.Barrier(count)

    def host(index):
        def gather(value):
            told[index] = value
            turn.wait()
            values = list(told)
            turn.wait()
            return values

        with make_one(Share(index, count, gather)) as own:
            return [next(own) for _ in range(batches)], own.get_state()

    with futures.ThreadPoolExecutor(count) as threads:
        read = list(threads.map(host, range(count)))
    assert len({json.dumps(state) for _, state in read}) == 1
    out = []
    for same in zip(*(batches for batches, _ in read), strict=True):
        hosts = [[e.host for e in batch] for batch in same]
        assert all(h == hosts[0] for h in hosts)
        out.append([same[h][i].tokens.tolist() for i, h in enumerate(hosts[0])])
        for h, batch in enumerate(same):
            assert all((len(e.tokens) > 0) == (e.host == h) for e in batch)
    return out, read[0][1]


@pytest.mark.parametrize("count", [2, 3])
def test_hosts_read_the_batches_of_one(folder, pool, tmp_path, count):
    """With an image that only decoding shows to be cut: its place is filled on all hosts alike."""
    write_cut_image(tmp_path / "cut.png")
    names = [*GRAYS, str(tmp_path / "cut.png")]

    def make_one(share=None):
        return make(make_rows(*names), folder, pool, groups=4, share=share, max_failed_share=0.5)

    with make_one() as alone:
        expected = [tokens(next(alone)) for _ in range(6)]
        state = alone.get_state()
    got, after = read_together(count, 6, make_one)
    assert got == expected
    assert after == state


def test_a_position_means_the_same_on_any_number_of_hosts(folder, pool):
    def make_one(share=None):
        return make(make_rows(*GRAYS), folder, pool, groups=4, share=share)

    with make_one() as alone:
        expected = [tokens(next(alone)) for _ in range(9)]
    read, state = [], None
    for count in (1, 2, 4):

        def resumed(share, state=state):
            own = make_one(share)
            if state is not None:
                own.set_state(state)
            return own

        more, state = read_together(count, 3, resumed)
        read += more
    assert read == expected


@pytest.mark.parametrize("count", [2, 3])
def test_each_file_is_opened_by_one_host_to_plan(folder, pool, monkeypatch, count):
    """The others learn its sizes, or why it has none: lengths, failures, batches are as alone."""
    made = make_rows(*GRAYS, "clip.mp4", "none.png", "clip.mp4")
    made[-1] = dataclasses.replace(made[-1], video_start=0.5)  # another part of the same file
    opened, measure = [], pool.measure

    def measured(job):
        opened.append((threading.current_thread().name, job.path))
        return measure(job)

    monkeypatch.setattr(pool, "measure", measured)
    loaders = []

    def make_one(share=None):
        own = make(made, folder, pool, groups=4, share=share, max_failed_share=0.5)
        loaders.append((own.lengths.tolist(), own.metrics()))
        return own

    with make_one() as alone:
        expected = [tokens(next(alone)) for _ in range(3)]
    assert len(opened) == len(made)
    opened.clear()
    got, _ = read_together(count, 3, make_one)
    assert got == expected
    assert len(opened) == len(made)  # by all hosts together
    assert all(seen == loaders[0] for seen in loaders)
    assert loaders[0][1]["data/decode_failed/missing"] == 1


def test_restoring_at_every_step_gives_the_same_rest(folder, pool):
    make_one = lambda: make(make_rows(*GRAYS[:5], "none.png"), folder, pool, max_failed_share=0.5)  # noqa: E731
    with make_one() as batches:
        states, seen = [], []
        for _ in range(7):
            states.append(json.loads(json.dumps(batches.get_state())))
            seen.append(tokens(next(batches)))
    for step, state in enumerate(states):
        with make_one() as batches:
            batches.set_state(state)
            assert [tokens(next(batches)) for _ in range(7 - step)] == seen[step:]
    with make_one() as batches:  # ... and going back in the same loader
        for step in (3, 0, 5):
            batches.set_state(states[step])
            assert tokens(next(batches)) == seen[step]


def test_mixed_sources_resume_and_know_their_weights(folder, pool):
    """Four rows of the first source to each of the second, which are 50 and 60."""

    def make_one(weight=0.8):
        sources = [loader.Source(4, weight), loader.Source(2, 1 - weight)]
        return make(make_rows(*GRAYS), folder, pool, groups=5, sources=sources)

    with make_one() as batches:
        seen = [tokens(next(batches)) for _ in range(2)]
        state = json.loads(json.dumps(batches.get_state()))
        rest = [tokens(next(batches)) for _ in range(3)]
    assert all(sum(t[0] >= 50 for t in batch) == 1 for batch in seen + rest)
    with make_one() as batches:
        batches.set_state(state)
        assert [tokens(next(batches)) for _ in range(3)] == rest
    with make_one(0.5) as other, pytest.raises(ValueError, match="give the same data file"):
        other.set_state(state)


def test_a_position_in_a_curriculum_knows_the_pass_rates(folder, pool):
    def make_one(rate):
        made = make_rows(*GRAYS, pass_rate=rate)
        return make(made, folder, pool, curriculum="easy_first")

    with make_one(0.5) as batches:
        state = batches.get_state()
    with make_one(0.25) as other, pytest.raises(ValueError, match="give the same data file"):
        other.set_state(state)
    with make_one(0.5) as same:
        same.set_state(state)


def test_a_source_without_usable_rows_is_refused(folder, pool):
    made = make_rows(*GRAYS[:3], "none.png", "gone.png")
    sources = [loader.Source(3, 0.5), loader.Source(2, 0.5)]
    says = r"data.sources: none of the 2 rows of the source with rows.jsonl:4 can be used"
    with pytest.raises(ValueError, match=f"{says}: 0 are over .*, 2 have media that cannot"):
        make(made, folder, pool, sources=sources, max_failed_share=0.9)


def test_a_source_of_too_long_prompts_names_limit_and_need(folder, pool):
    made = make_rows(*GRAYS[:3], "clip.mp4")  # of 14 tokens, and 22
    sources = [loader.Source(3, 0.5), loader.Source(1, 0.5)]
    says = r"1 are over data.max_prompt_tokens=15 \(from 22 tokens\), 0 have media that cannot"
    with pytest.raises(ValueError, match=says):
        make(made, folder, pool, sources=sources, max_prompt_tokens=15)


def test_images_and_clips_have_budgets_of_their_own_in_one_batch(tmp_path, pool):
    """Images of at most 96 x 96 pixels, frames of 64 x 64; both are 128 x 128."""
    write_image(tmp_path / "a.png", gray=40, size=(128, 128))
    write_clip(tmp_path / "a.mp4", 30, size=(128, 128))
    kinds = {
        "text": {},
        "image": {"images": ["a.png"]},
        "video": {"videos": ["a.mp4"]},
        "mixed": {"images": ["a.png"], "videos": ["a.mp4"]},
    }
    made = []
    for i, fields in enumerate(kinds.values()):
        row = {"problem": "q", "answer": "a", "problem_type": "math", **fields}
        made.append(rows.parse_row(row, i, f"rows.jsonl:{i + 1}"))
    assert [row.data_type for row in made] == list(kinds)
    budgets = dataclasses.replace(BUDGETS, image_max_pixels=96 * 96, video_max_pixels=64 * 64)
    source = MediaSource(budgets=budgets, geometry=GEOMETRY, pool=pool, media_dir=str(tmp_path))
    grids = [[source.size(r).grid_thw[1:] for r in media_requests(row)] for row in made]
    image, frame = (6, 6), (4, 4)  # patches of 16 pixels
    assert grids == [[], [image], [frame], [image, frame]]
    loaded = [source.load(r).frames.shape[1:3] for r in media_requests(made[3])]
    assert loaded == [(96, 96), (64, 64)]


def test_a_position_of_other_rows_is_refused(folder, pool):
    with make(make_rows(*GRAYS), folder, pool) as batches:
        state = batches.get_state()
    edited = [dataclasses.replace(row, answer="other") for row in make_rows(*GRAYS)]
    for other, why in (
        (make(make_rows(*GRAYS[:5]), folder, pool), "6 rows then, 5 now"),
        (make(edited, folder, pool), "rows hold another answer"),
        (make(make_rows(*GRAYS), folder, pool, seed=2), "seed was 1, now it is 2"),
    ):
        with other, pytest.raises(ValueError, match="give the same data file and seed") as error:
            other.set_state(state)
        assert str(error.value).startswith(
            f"the run's place in the data is of other data: {why}; give"
        )


def test_the_next_row_takes_the_place_of_a_failed_one(folder, pool, tmp_path):
    (tmp_path / "3.png").write_text("no image")
    names = [str(folder / n) for n in GRAYS]
    names[1:1] = [str(tmp_path / "none.png"), str(tmp_path / "3.png")]
    with make(
        make_rows(*names), folder, pool, shuffle=False, epochs=1, max_failed_share=0.3
    ) as batches:
        assert [tokens(b) for b in batches] == [[[10], [20]], [[30], [40]], [[50], [60]]]
        assert batches.metrics() == {
            "data/decode_failed": 2.0,
            "data/decode_failed/missing": 1.0,
            "data/decode_failed/undecodable": 1.0,
            "data/overlong_rows": 0.0,
        }


def test_what_only_decoding_shows_is_passed_over_too(folder, tmp_path):
    write_cut_image(tmp_path / "cut.png")
    names = [GRAYS[0], str(tmp_path / "cut.png"), GRAYS[1]]
    quarantine = tmp_path / "quarantine.jsonl"
    with DecodePool(1, 30.0, quarantine=Quarantine(quarantine)) as own_pool:
        options = {"shuffle": False, "epochs": 1, "max_failed_share": 0.5, "threads": 0}
        with make(make_rows(*names), folder, own_pool, **options) as batches:
            assert [tokens(b) for b in batches] == [[[10], [20]]]
            assert batches.metrics()["data/skipped_rows"] == 1
        assert len(quarantine.read_text().splitlines()) == 1
        options["max_failed_share"] = 0.3
        with pytest.raises(ValueError, match="1 of 3 media cannot be used"):  # known by now
            make(make_rows(*names), folder, own_pool, **options)


def test_too_many_failures_stop_the_run_while_it_reads(folder, pool, tmp_path):
    write_cut_image(tmp_path / "cut.png")
    names = [*GRAYS, str(tmp_path / "cut.png")]
    with (
        make(make_rows(*names), folder, pool, epochs=1, shuffle=False) as batches,
        pytest.raises(
            ValueError, match=r"1 of 7 media .*data.max_failed_share=0.01; first: .*cut.png"
        ),
    ):
        list(batches)


def test_overlong_prompts_are_planned_away_without_decoding(folder, monkeypatch):
    class Measuring(DecodePool):
        def decode(self, job):
            pytest.fail("decoded")

    names = ["clip.mp4", *GRAYS]
    with Measuring(1, 30.0) as pool:
        with make(make_rows(*names), folder, pool, max_prompt_tokens=15) as batches:
            # the clip: 4 frames of 64x96 are 2 * 2 * 3 visual tokens; an image is 4
            assert batches.lengths.tolist() == [22, *[14] * 6]
            assert batches.metrics()["data/overlong_rows"] == 1
        with pytest.raises(ValueError, match=r"rows.jsonl:1 \(0\): 22 prompt tokens, over"):
            make(make_rows(*names), folder, pool, max_prompt_tokens=15, overlong="refuse")
        with pytest.raises(
            ValueError,
            match=r"^1 of 7 rows are over data.max_prompt_tokens=15, up to 22 tokens "
            r"\(1 of 7 math\): over data.max_overlong_share=0.1; .*; first: rows.jsonl:1$",
        ):
            make(make_rows(*names), folder, pool, max_prompt_tokens=15, max_overlong_share=0.1)
        with pytest.raises(ValueError, match="none of 7 rows is left: 7 are over"):
            make(make_rows(*names), folder, pool, max_prompt_tokens=9)


def test_rows_with_several_media_and_with_none(folder, pool):
    mixed = rows.parse_row(
        {
            "problem": "<video> <image> <image>",
            "answer": "a",
            "problem_type": "math",
            "images": ["2.png", "1.png"],
            "videos": "clip.mp4",
            "video_start": 0.5,
        },
        0,
        "f:1",
    )
    text = rows.parse_row({"problem": "q", "answer": "a", "problem_type": "math"}, 1, "f:2")
    with make([mixed, text], folder, pool, shuffle=False, epochs=1) as batches:
        assert [tokens(b) for b in batches] == [[[60, 20, 10], []]]  # frame 15 is gray 60


@pytest.fixture(scope="module")
def cached(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("shards") / "out"
    wanted = make_rows(*GRAYS[:4], "clip.mp4")
    summary = preprocess(
        wanted * 3, str(root), budgets=BUDGETS, geometry=GEOMETRY, media_dir=str(folder), workers=2
    )
    assert (summary.images, summary.videos, summary.failed) == (4, 1, [])
    return root


def test_the_three_sources_give_the_same_pixels(folder, cached, pool, tmp_path):
    names = [*GRAYS[:4], "clip.mp4"]
    for mode, where in (
        ("realtime_only", folder),
        ("prefer_preprocessed", folder),
        ("preprocessed_only", folder),
        ("preprocessed_only", "/nowhere"),  # the files are gone, the shards are enough
    ):
        options = {"shuffle": False, "epochs": 1, "groups": 5}
        with make(
            make_rows(*names), where, pool, shards=str(cached), mode=mode, **options
        ) as batches:
            assert tokens(next(batches)) == [[10], [20], [30], [40], [0]]
            assert batches.lengths.tolist() == [14, 14, 14, 14, 22]


def test_shards_are_used_where_they_are_preferred(folder, cached):
    with (
        DecodePool(1, 30.0) as pool,
        make(make_rows(*GRAYS[:4]), folder, pool, shards=str(cached), epochs=1) as batches,
    ):
        list(batches)
        assert pool._children == [None]
    with (
        DecodePool(1, 30.0) as pool,
        make(make_rows(*GRAYS[:4]), folder, pool, shards=str(cached), mode="realtime_only"),
    ):
        assert pool._children != [None]


def test_what_is_not_in_the_shards_is_decoded_or_refused(folder, cached, pool):
    with make(make_rows(*GRAYS), folder, pool, shards=str(cached), groups=6) as batches:
        assert sorted(tokens(next(batches))) == [[10 * n] for n in range(1, 7)]
    with pytest.raises(ValueError, match=r"2 of 6 media .* not in .*; run evr1 preprocess"):
        make(make_rows(*GRAYS), folder, pool, shards=str(cached), mode="preprocessed_only")


def test_a_damaged_shard_stops_the_run(folder, cached, pool, tmp_path):
    import shutil

    shutil.copytree(cached, tmp_path / "s")
    [shard] = (tmp_path / "s").glob("media-*")
    data = bytearray(shard.read_bytes())
    data[data.index(bytes([20]) * 64) + 100] ^= 1  # in the second image
    shard.write_bytes(data)
    with (
        make(make_rows(*GRAYS[:4]), folder, pool, shards=str(tmp_path / "s"), epochs=1) as batches,
        pytest.raises(ValueError, match=r"media-train.* is damaged .*; delete this shard file"),
    ):
        list(batches)


def test_wrong_sources_are_refused(folder, pool):
    with pytest.raises(ValueError, match="data.source='cached'; give one of prefer"):
        make(make_rows(*GRAYS), folder, pool, mode="cached")
    with pytest.raises(ValueError, match="needs data.shards"):
        make(make_rows(*GRAYS), folder, pool, mode="preprocessed_only")


def run_tool(*flags):
    return subprocess.run(
        [sys.executable, TOOL, *map(str, flags)], capture_output=True, text=True, timeout=120
    )


def test_the_tool_fills_shards_and_continues(folder, tmp_path):
    data = tmp_path / "rows.jsonl"
    (tmp_path / "bad.mp4").write_text("no video")
    names = ["1.png", "clip.mp4", str(tmp_path / "bad.mp4")]
    lines = [{"problem": "q", "images" if n.endswith("png") else "videos": n} for n in names]
    data.write_text("\n".join(map(json.dumps, lines * 2)))
    flags = ["--data", data, "--media_dir", folder, "--out", tmp_path / "s", "--max_frames", 4]
    first = run_tool(*flags, "--max_failed_share", "0.5")
    assert first.returncode == 0, first.stderr
    assert "1 video and 1 image written (5 frames" in first.stdout
    assert "bad.mp4: cannot be read as a video" in first.stdout
    assert len(ShardStore(tmp_path / "s")) == 2
    assert len((tmp_path / "s" / "quarantine.jsonl").read_text().splitlines()) == 1
    again = run_tool(*flags)
    assert again.returncode == 1
    assert "0 videos and 0 images written" in again.stdout
    assert "2 there before, 1 failed" in again.stdout
    [line] = again.stderr.splitlines()
    assert line.startswith("preprocess_videos: 1 of 3 media failed, over --max_failed_share=0.01")
    assert len(ShardStore(tmp_path / "s")) == 2


def test_the_tool_refuses_bad_rows_in_one_line(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"problem": 5}')
    done = run_tool("--data", tmp_path / "rows.jsonl", "--out", tmp_path / "s")
    assert done.returncode == 1
    assert done.stderr == (
        f"preprocess_videos: {tmp_path}/rows.jsonl:1: problem: got 5; give a non-empty string\n"
    )


def test_identical_files_are_decoded_once(folder, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes((folder / "1.png").read_bytes())
    summary = preprocess(
        make_rows("a.png", "b.png"),
        str(tmp_path / "s"),
        budgets=BUDGETS,
        geometry=GEOMETRY,
        media_dir=str(tmp_path),
        workers=1,
    )
    assert (summary.images, summary.cached) == (1, 1)
    assert np.array_equal(summary.total, 2)


def passed(batches):
    return [line for line in batches.pop_lines() if line.endswith("passed over")]


def row_of(name):
    return f"rows.jsonl:{GRAYS.index(name) + 1}"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_rows_that_are_larger_than_planned_are_passed_over_and_told_once(folder, pool, count):
    """As the header of a fragmented file has it: 30 and 50 do not fit what was planned."""

    def make_one(share=None):
        batches = make(make_rows(*GRAYS), folder, pool, groups=2, share=share, max_failed_share=0)
        batches.misfit = lambda e: "over the largest bucket" if e.tokens[0] in (30, 50) else ""
        return batches

    def read(share):
        with make_one(share) as batches:
            got = [next(batches) for _ in range(6)]
            return passed(batches), batches.metrics(), batches.get_state(), len(got)

    with make_one() as alone:
        expected = [tokens(next(alone)) for _ in range(6)]
        lines, metrics, state = passed(alone), alone.metrics(), alone.get_state()
        assert alone.pop_lines() == []
    assert sorted(sum(sum(expected, []), [])) == [10] * 3 + [20] * 3 + [40] * 3 + [60] * 3
    assert sorted(lines) == [
        f"{row_of(name)} ({n}): 14 prompt tokens planned, 1 decoded, over the largest bucket: "
        "passed over"
        for n, name in ((2, "3.png"), (4, "5.png"))
    ]
    assert metrics["data/misfit_rows"] >= 5
    got, after = read_together(count, 6, make_one)
    assert (got, after) == (expected, state)


def test_hosts_tell_the_same_rows(folder, pool):
    told, turn = [[], []], threading.Barrier(2)

    def host(index):
        def gather(value):
            told[index] = value
            turn.wait()
            values = json.loads(json.dumps(told))
            turn.wait()
            return values

        share = loader.Share(index, 2, gather)
        with make(make_rows(*GRAYS), folder, pool, groups=4, share=share) as batches:
            batches.misfit = lambda e: "too large" if e.tokens[0] == 30 else ""
            for _ in range(4):
                next(batches)
            return batches.pop_lines(), batches.metrics()

    with futures.ThreadPoolExecutor(2) as threads:
        first, second = threads.map(host, range(2))
    assert first == second
    assert sum("too large" in line for line in first[0]) == 1
    plain = [line for line in first[0] if line.startswith("warning: one plain color: ")]
    named = [line.split(" media: ")[1].split(", ") for line in plain]
    drawn = [name for name in GRAYS if name != "3.png"]  # which did not fit
    assert sorted(sum(named, [])) == [f"{name} ({row_of(name)})" for name in drawn]


def test_nothing_that_fits_is_an_error_and_no_endless_search(folder, pool):
    with make(make_rows(*GRAYS), folder, pool) as batches:
        batches.misfit = lambda _: "too large"
        with pytest.raises(ValueError, match=r"none of 6 rows can be used any more; .*too large"):
            next(batches)


def test_a_resumed_run_goes_on_past_a_row_that_is_skipped_now(folder, pool):
    """The order and the position are as with the row; the next one takes its place."""
    with make(make_rows(*GRAYS), folder, pool) as batches:
        order = [t for _ in range(9) for t in tokens(next(batches))]
    with make(make_rows(*GRAYS), folder, pool) as batches:
        next(batches)
        state = json.loads(json.dumps(batches.get_state()))
    poisoned = order[2]
    skipped = frozenset([GRAYS.index(f"{poisoned[0] // 10}.png")])
    with make(make_rows(*GRAYS), folder, pool, skipped=skipped) as batches:
        batches.set_state(state)
        got = [t for _ in range(5) for t in tokens(next(batches))]
        [line] = [line for line in batches.pop_lines() if "data.skip" in line]
        assert batches.metrics()["data/listed_rows"] >= 2
    assert got == [t for t in order[2:] if t != poisoned][:10]
    assert line == f"{row_of(GRAYS[min(skipped)])} ({min(skipped)}): passed over, as data.skip says"
