"""The job of benchmarks on miniatures: what an answer may depend on, and that none is lost."""

import json
import shutil

import evals_rig as rig
import pytest
import templates
from miniatures import write

from evr1 import __version__, evaluate
from evr1.data.media.decode import DecodePool
from evr1.data.media.source import MediaSource, Request
from evr1.evals import job, manifest, plan, presets, samples
from evr1.evals.__main__ import main
from evr1.evals.packs import Asker, bundles
from evr1.evals.tasks import find
from evr1.formats.part import Part
from evr1.sampler.actor import open_actor

# Eight questions on a video; lectures, images and clips; prompts of another kind.
TASKS = ("lvbench", "video_mmmu", "stvg")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for task in (*TASKS, "livesports3k_qa"):
        write(task, root / task)
    return root


@pytest.fixture(scope="module")
def base(data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    rig.run(rig.settings(workdir, data, tasks=TASKS))
    return workdir


def test_all_samples_are_answered(base, data):
    found = rig.answers(base)
    for task in TASKS:
        ids = {sample.id for sample in find(task).load(data / task)}
        assert {id for name, id in found if name == task} == ids
    assert not [a for a in found.values() if a.reason]
    assert len({a.responses for a in found.values()}) > 3


def test_a_bundle_asks_for_what_its_samples_show(tmp_path):
    write("mvbench", tmp_path)
    listed = [bundle.media for bundle in bundles(list(find("mvbench").load(tmp_path)))]
    frames = Request("video", "video/tvqa/frames_fps3_hq/0", 0.5, 2.5, frames_per_s=3.0)
    cut = Request("video", "video/sta/sta_video/2.mp4", 0.5, 2.5)
    assert (frames,) in listed
    assert (cut,) in listed


def test_answers_are_those_of_separate_prompts(base, data):
    """Each question as a whole prompt through the sampler as the tools use it."""
    actor = open_actor(str(rig.MODEL), slots=2, window=8)
    params = actor.load(str(rig.MODEL))
    sampling = actor.sampling(temperature=0.0, max_tokens=12)
    found = rig.answers(base)
    with DecodePool(1, 60.0) as pool:
        for name in TASKS:
            task = find(name)
            source = MediaSource(
                budgets=presets.find("smoke").budgets(),
                geometry=actor.processor.geometry,
                pool=pool,
                media_dir=str(data / name),
            )
            prompt = next(iter(task.prompts.values()))
            asker = Asker(data / name, prompt, actor.processor, 8)
            asked, examples = [], []
            for bundle in bundles(list(task.load(data / name))):
                media = [source.load(request) for request in bundle.media]
                for sample in bundle.samples:
                    row, shown, _ = asker.row(sample, media)
                    asked.append((name, sample.id))
                    examples.append(actor.processor.encode(row, shown, raw=True))
            rollouts = actor.generate(params, examples, range(len(examples)), sampling)
            assert [found[key].responses[0] for key in asked] == actor.texts(rollouts)
            assert [found[key].tokens[0] for key in asked] == rollouts.lengths[:, 0].tolist()


@pytest.mark.parametrize("fields", [{"slots": 3, "rows": 3}, {"rows": 1, "window_steps": 16}])
def test_slots_rows_and_windows_change_no_answer(base, data, tmp_path, fields):
    rig.run(rig.settings(tmp_path, data, tasks=TASKS[:1], **fields))
    want = {key: a for key, a in rig.timeless(rig.answers(base)).items() if key[0] == TASKS[0]}
    assert rig.timeless(rig.answers(tmp_path)) == want


def test_parts_give_the_same_answers_whatever_their_order(base, data, tmp_path):
    made = rig.settings(tmp_path, data, tasks=TASKS)
    for part in ("3/3", "1/3", "2/3"):
        rig.run(made, part)
    assert rig.timeless(rig.answers(tmp_path)) == rig.timeless(rig.answers(base))
    parts = [samples.read(path).answers for path in sorted(tmp_path.glob("samples_lvbench.*"))]
    assert sum(map(len, parts)) == len(list(find("lvbench").load(data / "lvbench")))
    clusters = [{a.sample.cluster for a in part} for part in parts]
    assert not clusters[0] & clusters[1]
    assert not clusters[1] & clusters[2]


def test_an_interrupted_job_goes_on_and_redoes_nothing(base, data, tmp_path, monkeypatch):
    made = rig.settings(tmp_path, data, tasks=TASKS)
    append, count = samples.Writer.append, 0

    def interrupted(writer, answer):
        nonlocal count
        count += 1
        if count == 6:
            raise KeyboardInterrupt
        append(writer, answer)

    monkeypatch.setattr(samples.Writer, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rig.run(made)
    before = rig.answers(tmp_path)
    assert len(before) == 5
    rig.run(made)
    after = rig.answers(tmp_path)
    assert {key: after[key] for key in before} == before  # to the second
    assert rig.timeless(after) == rig.timeless(rig.answers(base))
    assert count == len(after) + 1
    rig.run(made)  # nothing is left
    assert count == len(after) + 1


def test_failed_media_are_written_and_retried(base, data, tmp_path):
    copy, workdir = tmp_path / "data", tmp_path / "run"
    shutil.copytree(data / "lvbench", copy / "lvbench")
    first = next(find("lvbench").load(copy / "lvbench")).media[0].path
    video = copy / "lvbench" / first
    kept = video.read_bytes()
    video.unlink()
    video.write_bytes(b"no video")
    made = rig.settings(workdir, copy, tasks=("lvbench",))
    rig.run(made)
    failed = {key for key, a in rig.answers(workdir).items() if a.reason}
    assert failed == {
        ("lvbench", sample.id)
        for sample in find("lvbench").load(copy / "lvbench")
        if sample.media[0].path == first
    }
    one = rig.answers(workdir)[next(iter(failed))]
    assert one.reason == "undecodable"
    assert first in one.detail
    assert "\n" not in one.detail
    video.write_bytes(kept)
    rig.run(made)
    assert {key for key, a in rig.answers(workdir).items() if a.reason} == failed
    rig.run(made, retry=True)
    want = {key: a for key, a in rig.timeless(rig.answers(base)).items() if key[0] == "lvbench"}
    assert rig.timeless(rig.answers(workdir)) == want


def test_several_responses_to_a_question(data, tmp_path):
    fields = {"samples": 3, "temperature": 1.0, "tasks": ("stvg",)}
    rig.run(rig.settings(tmp_path / "a", data, **fields))
    rig.run(rig.settings(tmp_path / "b", data, **fields, slots=1))
    found = rig.timeless(rig.answers(tmp_path / "a"))
    assert found == rig.timeless(rig.answers(tmp_path / "b"))
    assert {len(a.responses) for a in found.values()} == {3}
    assert any(len(set(a.responses)) > 1 for a in found.values())


def test_an_answer_says_that_its_prompt_has_begun_to_think(data, tmp_path):
    model = templates.make_dir(tmp_path, templates.PREFILLED)
    rig.run(rig.settings(tmp_path / "run", data, tasks=("lvbench",), limit=1, model=model))
    assert {a.think_open for a in rig.answers(tmp_path / "run").values()} == {True}


def test_a_letter_is_chosen_where_the_authors_compare_logits(data, tmp_path):
    rig.run(rig.settings(tmp_path, data, tasks=("livesports3k_qa",)))
    found = rig.answers(tmp_path).values()
    assert {a.responses[0] for a in found} <= set("ABCD")
    assert {a.finishes for a in found} == {("stop",)}
    assert not any(a.think_open for a in found)


def test_a_letter_is_chosen_behind_the_block_that_the_prompt_opens(data, tmp_path):
    tails = {"open": (templates.PREFILLED, None), "empty": (templates.SWITCH, False)}
    found = {}
    for name, (tail, thinking) in tails.items():
        (tmp_path / name).mkdir()
        model = templates.make_dir(tmp_path / name, tail)
        fields = {"tasks": ("livesports3k_qa",), "model": model, "thinking": thinking}
        rig.run(rig.settings(tmp_path / name / "run", data, **fields))
        found[name] = rig.nameless(rig.answers(tmp_path / name / "run"))
    assert found["open"] == found["empty"]
    assert not any(a.think_open for a in found["open"].values())


OWN = """
from evr1.evals.tasks import data_rows
from evr1.evals.tasks.base import Source, Task

TASK = Task(
    name="own_clips",
    source=Source(hub=("own clips",), n=1, frames="smoke"),
    load=data_rows.loader("rows.jsonl"),
    prompts={"training": data_rows.ask},
    rules={"evr1": data_rows.by_reward},
)
"""


def test_a_task_of_ones_own_is_a_path(data, tmp_path):
    clip = data / "lvbench" / next(find("lvbench").load(data / "lvbench")).media[0].path
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "task.py").write_text(OWN)
    row = {"problem": "Who?", "answer": "red", "problem_type": "open-ended", "data_type": "video"}
    row |= {"videos": [str(clip)], "problem_id": "a"}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    tasks, folders = (str(folder / "task.py"),), (("own_clips", str(folder)),)
    rig.run(rig.settings(tmp_path / "run", data, tasks=tasks, folders=folders, limit=0))
    assert list(rig.answers(tmp_path / "run")) == [("own_clips", "a")]
    said = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert said["tasks"]["own_clips"]["file"] == str(folder / "task.py")


def test_the_folder_of_ones_own_task_goes_by_its_name(tmp_path):
    (tmp_path / "task.py").write_text(OWN)
    file = str(tmp_path / "task.py")
    made = rig.settings(tmp_path, tmp_path, tasks=(file,), folders=((file, str(tmp_path)),))
    with pytest.raises(ValueError, match="did you mean own_clips"):
        job.prepare(made)


def test_a_benchmark_without_questions_is_refused(tmp_path):
    (tmp_path / "task.py").write_text(OWN)
    (tmp_path / "rows.jsonl").write_text("")
    tasks, folders = (str(tmp_path / "task.py"),), (("own_clips", str(tmp_path)),)
    with pytest.raises(ValueError, match=r"rows.jsonl|holds no question of own_clips"):
        job.prepare(rig.settings(tmp_path, tmp_path, tasks=tasks, folders=folders))


def test_all_of_them_and_ones_own(data, tmp_path):
    (tmp_path / "task.py").write_text(OWN)
    made = rig.settings(tmp_path, tmp_path, tasks=("all", str(tmp_path / "task.py")))
    with pytest.raises(ValueError, match="video_mme is no folder"):
        job.prepare(made)


def test_annotations_are_read_once(data, tmp_path, monkeypatch):
    from evr1.evals.tasks import files

    read = []
    monkeypatch.setattr(files, "_record", read.append)
    job.prepare(rig.settings(tmp_path, data, tasks=("lvbench",)))
    assert len(read) == len(set(read)) > 0


def test_a_prompt_over_the_limit_is_a_failure(data, tmp_path):
    rig.run(rig.settings(tmp_path, data, tasks=("lvbench",), max_prompt_tokens=60))
    found = rig.answers(tmp_path).values()
    assert {a.reason for a in found} == {"too_long"}
    assert "over max_prompt_tokens=60" in next(iter(found)).detail


def test_a_folder_holds_answers_of_one_kind(base, data):
    with pytest.raises(ValueError, match="max_tokens was 12, now it is 13; give another"):
        rig.run(rig.settings(base, data, tasks=TASKS, max_tokens=13))
    with pytest.raises(ValueError, match="lvbench: preset was 'smoke', now it is 'train'"):
        rig.run(rig.settings(base, data, tasks=("lvbench",), preset="train"))


def test_parts_of_different_runs_are_not_mixed(data, tmp_path):
    """Each is right in its own folder; somebody puts their files into one."""
    for part, seed in (("1/2", 0), ("2/2", 1)):
        made = rig.settings(tmp_path / part[0], data, tasks=("lvbench,stvg",), seed=seed)
        rig.run(made, part)
    for name in ("1of2", "2of2"):
        shutil.copy(tmp_path / name[0] / f"samples_lvbench.{name}.jsonl", tmp_path)
    with pytest.raises(SystemExit, match="lvbench: answers are of 2 runs with other models, seeds"):
        main(["score", str(tmp_path)])


def test_answers_of_which_nothing_is_known_get_no_company(base, data, tmp_path):
    shutil.copy(base / "samples_lvbench.jsonl", tmp_path)
    made = rig.settings(tmp_path, data, tasks=("stvg",))
    with pytest.raises(
        ValueError, match=r"samples_lvbench.jsonl has answers, but no manifest.json"
    ):
        manifest.check(tmp_path, made, job.prepare(made))


@pytest.mark.parametrize(
    ("temperature", "preset", "is_said"),
    [(0.7, "qwen3vl-script", True), (0.0, "qwen3vl-script", False), (0.7, "qwen3vl", False)],
)
def test_a_penalty_that_is_not_drawn_with_is_said(data, tmp_path, temperature, preset, is_said):
    fields = {"tasks": ("lvbench",), "preset": preset, "temperature": temperature}
    [prepared] = job.prepare(rig.settings(tmp_path, data, **fields))
    lines = job._lines(prepared, 3, Part(), temperature)
    assert lines[0].startswith("lvbench: 3 of ")
    assert any("presence penalty 1.5; there is none here" in line for line in lines) == is_said


def test_other_weights_at_the_same_path_are_another_model(data, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(rig.MODEL, model)
    made = rig.settings(tmp_path / "run", data, tasks=("stvg",), model=str(model))
    manifest.write(tmp_path / "run", made, prepared := job.prepare(made))
    shutil.copytree(model, tmp_path / "copy")
    moved = rig.settings(tmp_path / "run", data, tasks=("stvg",), model=str(tmp_path / "copy"))
    manifest.check(tmp_path / "run", moved, prepared)  # the same weights
    file = next(model.glob("*.safetensors"))
    held = bytearray(file.read_bytes())
    held[-1] ^= 1
    file.write_bytes(held)
    with pytest.raises(ValueError, match=r"weights or settings of .*model are not those") as error:
        manifest.check(tmp_path / "run", made, prepared)
    assert "\n" not in str(error.value)


def test_what_failed_for_a_limit_is_retried_with_a_higher_one(base, data):
    """The reason says so; answers do not depend on it."""
    made = rig.settings(base, data, tasks=TASKS, max_prompt_tokens=300_000)
    manifest.check(base, made, job.prepare(made))


def test_a_model_that_is_not_there_does_not_name_the_run(data, tmp_path):
    with pytest.raises(ValueError, match="not a directory"):
        rig.run(rig.settings(tmp_path, data, tasks=("stvg",), model=str(tmp_path / "typo")))
    assert not (tmp_path / "manifest.json").exists()


def test_a_part_without_samples_is_done(data, tmp_path, capsys):
    made = rig.settings(tmp_path, data, tasks=("lvbench",), limit=1)
    [prepared] = job.prepare(made)
    empty = next(
        n for n in "12" if not plan.is_of(Part.parse(f"{n}/2"), "lvbench", *prepared.samples)
    )
    evaluate.answer_benchmarks(made, f"{empty}/2", retry=False)
    assert "lvbench: 0 of 1 questions to answer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tasks": ("lvbenhc",)}, "no task 'lvbenhc'; did you mean lvbench"),
        ({"tasks": ("lvbench",), "preset": "smok"}, "no frame preset 'smok'; did you mean smoke"),
        ({"tasks": ("lvbench",), "prompt": "theirs"}, "config.prompt is 'theirs'; lvbench has "),
        ({"tasks": ("lvbench",), "limit": 0}, "holds no complete lvbench: see python -m"),
        ({"tasks": ("minerva",)}, "minerva is no folder"),
        (
            {"tasks": ("lvbench",), "folders": (("lvbnech", "x"),)},
            "config.folders: no task 'lvbnech'; did you mean lvbench",
        ),
        (
            {"tasks": ("lvbench",), "folders": (("lvbench", "x"), ("lvbench", "y"))},
            "config.folders names lvbench 2 times",
        ),
        ({"tasks": ("lvbench",), "shards": "none"}, "config.shards is none: no such directory"),
        (
            {"tasks": ("lvbench",), "decode_timeout_s": 1e9},
            "config.decode_timeout_s is 1.*at most",
        ),
    ],
)
def test_bad_input_is_one_line(data, tmp_path, fields, message):
    with pytest.raises(ValueError, match=message) as error:
        rig.run(rig.settings(tmp_path, data, **fields))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "part"),
    [("1/1", (0, 1)), ("0/1", (0, 1)), ("1/3", (1, 3)), ("3/3", (0, 3)), ("0/3", (0, 3))],
)
def test_parts_are_counted_from_0_or_from_1(text, part):
    assert Part.parse(text) == Part(*part)


@pytest.mark.parametrize("text", ["", "1", "4/3", "-1/3", "1/0", "a/b", "1/3/5"])
def test_other_parts_are_refused(text):
    with pytest.raises(ValueError, match="give i/N"):
        Part.parse(text)


def test_the_manifest_says_what_the_run_is(base, data):
    said = json.loads((base / "manifest.json").read_text())
    assert said["n_expected"] == {task: len(list(find(task).load(data / task))) for task in TASKS}
    assert said["tasks"]["lvbench"]["preset"] == "smoke"
    assert said["model"] == str(rig.MODEL)
    assert said["evr1_version"] == __version__
