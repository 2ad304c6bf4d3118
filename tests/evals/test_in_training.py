"""Benchmarks at the evaluations of a training: what they answer, leave, measure and refuse."""

import dataclasses
import json
import shutil
import threading
from concurrent import futures

import evals_rig as rig
import jax
import numpy as np
import pytest
from answers_rig import answer
from miniatures import write
from repo import ROOT

from configs import demo
from evr1.batch.shapes import shapes_alike
from evr1.config import evals, resolve
from evr1.evals import in_training, rescore, samples
from evr1.evals.__main__ import main
from evr1.sampler.actor import open_actor
from evr1.telemetry import perf

TASKS = ("lvbench",)
LIMIT = 4  # questions, on two videos


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for task in TASKS:
        write(task, root / task)
    return root


@pytest.fixture(scope="module")
def actor():
    """As a training has one."""
    shapes = shapes_alike(512, 36, 24)
    return open_actor(str(rig.MODEL), slots=2, window=8, shapes=shapes)


@pytest.fixture(scope="module")
def params(actor):
    return actor.load(str(rig.MODEL))


def settings(workdir, data, *, tasks=TASKS, **fields):
    """What a training makes of a small config."""
    c = demo.get_config()
    c.workdir, c.eval.benchmark_preset, c.eval.benchmark_max_tokens = str(workdir), "smoke", 12
    c.eval.benchmark_limit = LIMIT
    c.eval.benchmarks = tuple((task, str(data / task)) for task in tasks)
    c.rollout.slots, c.rollout.n, c.data.workers = 2, 8, 1
    c.update_from_flattened_dict({f"eval.{name}": value for name, value in fields.items()})
    return evals.in_training(resolve(c, has_paths=False))


def opened(made, actor):
    return in_training.open_benchmarks(made, in_training.prepare(made), actor)


@pytest.fixture(scope="module")
def trained(data, actor, params, tmp_path_factory):
    """Two evaluations of one training, the second with other weights: workdir, metrics of each,
    and what the second one compiled.
    """
    workdir = tmp_path_factory.mktemp("run")
    benchmarks = opened(settings(workdir, data), actor)
    first = benchmarks.evaluate(params, 0)
    others = jax.tree.map(lambda x: jax.device_put(-np.asarray(x), x.sharding), params)
    with perf.CompileCounter() as compiles:
        second = benchmarks.evaluate(others, 4)
    return workdir, first, second, compiles.count


def test_answers_are_those_of_the_job(trained, data, tmp_path):
    """Of the same questions, whatever their prompts are padded to."""
    workdir, *_ = trained
    rig.run(rig.settings(tmp_path, data, tasks=TASKS, limit=LIMIT))
    assert rig.nameless(rig.answers(workdir / "benchmarks" / "step_0")) == rig.nameless(
        rig.answers(tmp_path)
    )


def test_later_evaluations_compile_nothing_and_answer_with_their_weights(trained):
    workdir, _, _, compiled = trained
    assert compiled == 0
    steps = [rig.answers(workdir / "benchmarks" / f"step_{n}") for n in (0, 4)]
    assert steps[0].keys() == steps[1].keys()
    assert {a.responses for a in steps[0].values()} != {a.responses for a in steps[1].values()}


def test_metrics_are_the_scores_of_the_folder(trained):
    workdir, *metrics, _ = trained
    for step, written in zip((0, 4), metrics, strict=True):
        scored = rescore.score_run(samples.read_run(workdir / "benchmarks" / f"step_{step}"))
        headlines = {}
        for each in scored:
            assert each.label == f"{each.task.name}@{LIMIT}"
            evr1, official = (r.scored.values[r.scored.headline] for r in each.results[:2])
            truncated = each.results[0].scored.n_truncated / LIMIT
            headlines |= {
                f"eval/{each.label}": evr1,
                f"eval/{each.label}/official": official,
                f"eval/{each.label}/failed_share": 0.0,
                f"eval/{each.label}/truncated_share": truncated,
            }
        assert written == headlines
        assert any(written[f"eval/{task}@{LIMIT}/truncated_share"] > 0 for task in TASKS)


class Meeting:
    """Two hosts in two threads, in place of `evr1.parallel.hosts`."""

    def __init__(self):
        self._own, self._told = threading.local(), [None, None]
        self._turn = threading.Barrier(2, timeout=300)

    def enter(self, index):
        self._own.index = index

    def index(self):
        return self._own.index

    def count(self):
        return 2

    def is_primary(self):
        return self.index() == 0

    def gather_json(self, value):
        self._told[self.index()] = json.loads(json.dumps(value))
        self._turn.wait()
        told = list(self._told)
        self._turn.wait()
        return told

    def agree(self, values, what):
        first, second = self.gather_json([values, what])
        assert first == second

    def once(self, make):
        made = make() if self.is_primary() else None
        self._turn.wait()
        return made

    def from_primary(self, make):
        return self.gather_json(self.once(make))[0]


def test_two_hosts_share_the_videos(trained, data, actor, params, tmp_path, monkeypatch):
    """Each answers those of its part, in the shapes of all; the folder and metrics are as alone."""
    workdir, expected, *_ = trained
    meeting, answered, lock = Meeting(), {}, threading.Lock()
    monkeypatch.setattr(in_training, "hosts", meeting)
    answer_planned = in_training.Answerer.answer_planned

    def one_at_a_time(self, prepared, plans, append, console):
        answered[meeting.index()] = {id for plan in plans for id in plan.waiting}
        with lock:
            answer_planned(self, prepared, plans, append, console)

    monkeypatch.setattr(in_training.Answerer, "answer_planned", one_at_a_time)

    def host(index):
        meeting.enter(index)
        return opened(settings(tmp_path, data), actor).evaluate(params, 0)

    with futures.ThreadPoolExecutor(2) as threads:
        assert list(threads.map(host, range(2))) == [expected, expected]
    alone, together = (rig.answers(root / "benchmarks" / "step_0") for root in (workdir, tmp_path))
    assert rig.nameless(together) == rig.nameless(alone)
    assert answered[0]
    assert answered[1]
    assert answered[0] | answered[1] == {id for _, id in alone}
    assert not answered[0] & answered[1]


def test_the_commands_take_the_folders(trained, capsys):
    runs = [str(trained[0] / "benchmarks" / f"step_{n}") for n in (0, 4)]
    for run in runs:
        main(["score", run, "--no-logs"])
    main(["compare", *runs])
    main(["view", runs[1]])
    printed = capsys.readouterr().out
    assert f"lvbench@{LIMIT}" in printed
    assert (trained[0] / "benchmarks" / "step_4" / "report.html").exists()


def test_a_resumed_training_replaces_what_it_answers_again(data, actor, params, tmp_path):
    benchmarks = opened(settings(tmp_path, data), actor)
    root = tmp_path / "benchmarks"
    for name in ("step_0", "step_2", "step_10", "step_mine"):
        (root / name).mkdir(parents=True)
        (root / name / "samples_lvbench.jsonl").write_text('{"torn')
    benchmarks.evaluate(params, 2)
    assert sorted(path.name for path in root.iterdir()) == ["step_0", "step_2", "step_mine"]
    assert len(rig.answers(root / "step_2")) == LIMIT


def test_a_medium_that_fails_later_makes_the_headline_partial(data, actor, params, tmp_path):
    shutil.copytree(data / "lvbench", tmp_path / "lvbench")
    benchmarks = opened(settings(tmp_path, tmp_path), actor)
    video = tmp_path / "lvbench" / "videos" / "mini_key0.mp4"  # of one question
    video.write_bytes(b"no video")
    metrics = benchmarks.evaluate(params, 0)
    assert set(metrics) == {
        "eval/partial_lvbench@4",
        "eval/partial_lvbench@4/official",
        "eval/lvbench@4/failed_share",
        "eval/lvbench@4/truncated_share",
    }
    assert metrics["eval/lvbench@4/failed_share"] == 1 / 4


def test_what_waits_for_a_judge_is_counted(data):
    """Open questions of MMVU, which our rule leaves to one."""
    write("mmvu", data / "mmvu")
    fields = {"tasks": ("mmvu",), "benchmark_limit": 99}
    [prepared] = in_training.prepare(settings("run", data, **fields))
    answers = [
        answer(s.id, "B", task="mmvu", sample=s, prompt=prepared.prompt) for s in prepared.samples
    ]
    metrics = in_training.task_metrics(prepared, answers)
    is_open = [s.doc["question_type"] == "open-ended" for s in prepared.samples]
    n = len(answers)
    assert metrics[f"eval/mmvu@{n}/unjudged_share"] == sum(is_open) / n > 0
    assert f"eval/partial_mmvu@{n}" in metrics
    assert metrics[f"eval/mmvu@{n}/failed_share"] == 0


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"benchmarks": (("lvbenhc", "."),)}, "config.eval.benchmarks: no task 'lvbenhc'; did you"),
        ({"benchmarks": (("lvbench", "nowhere"),)}, "config.eval.benchmarks: nowhere is no folder"),
        ({"benchmarks": (("lvbench", "."),)}, "config.eval.benchmarks: . holds no "),
        ({"benchmark_preset": "smok"}, "config.eval.benchmark_preset: no frame preset 'smok'; did"),
    ],
)
def test_bad_input_is_one_line(data, tmp_path, monkeypatch, fields, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"^{says}") as error:
        in_training.prepare(settings(tmp_path, data, **fields))
    assert "\n" not in str(error.value)


def test_a_task_of_ones_own_is_named_by_its_file(tmp_path):
    """Its name may have capitals, which names of metrics have not."""
    text = (ROOT / "docs" / "own_benchmark.py").read_text("utf-8")
    (tmp_path / "own.py").write_text(text.replace("door_clips", "Doors"))
    (tmp_path / "clips").mkdir()
    row = '{"problem_id": "1", "problem": "<video>Who?", "answer": "a man", "kind": "who", '
    row += '"problem_type": "open-ended", "data_type": "video", "videos": ["clips/a.mp4"]}'
    (tmp_path / "questions.jsonl").write_text(row)
    own = ((str(tmp_path / "own.py"), str(tmp_path)),)
    [prepared] = in_training.prepare(settings("run", tmp_path, benchmarks=own))
    [sample] = prepared.samples
    cut = answer(sample.id, "a man", task="Doors", sample=sample, prompt=prepared.prompt, cut=True)
    metrics = in_training.task_metrics(prepared, [cut])
    assert metrics["eval/doors@1/truncated_share"] == 1
    assert "eval/doors@1" in metrics


def test_an_aggregate_that_fails_is_told_and_counted(data):
    def fails(records):
        raise ZeroDivisionError

    [prepared] = in_training.prepare(settings("run", data, tasks=("lvbench",)))
    task = dataclasses.replace(prepared.task, aggregates={"evr1": fails})
    prepared = dataclasses.replace(prepared, task=task)
    answers = [
        answer(s.id, "B", task="lvbench", sample=s, prompt=prepared.prompt)
        for s in prepared.samples
    ]
    told = []
    metrics = in_training.task_metrics(prepared, answers, told.append)
    assert told == ["benchmark lvbench: evr1 cannot add up: ZeroDivisionError()"]
    assert metrics[f"eval/lvbench@{LIMIT}/failed_share"] == 1
    assert f"eval/lvbench@{LIMIT}/official" in metrics
    assert f"eval/lvbench@{LIMIT}" not in metrics


def test_a_task_comes_once(data, tmp_path):
    with pytest.raises(ValueError, match="two tasks are named lvbench; keep one"):
        in_training.prepare(settings(tmp_path, data, tasks=("lvbench", "lvbench")))


def test_a_file_that_the_questions_need_is_missed_before_the_first_step(data, actor, tmp_path):
    shutil.copytree(data / "lvbench", tmp_path / "lvbench")
    (tmp_path / "lvbench" / "videos" / "mini_key2.mp4").unlink()
    with pytest.raises(
        ValueError, match="lvbench: 8 of the 10 questions cannot be asked, 20 since"
    ):
        opened(settings(tmp_path, tmp_path, benchmark_limit=99), actor)


def test_prompts_of_benchmarks_take_no_more_room_than_those_of_rollouts(actor):
    many = dataclasses.replace(actor, slots=8)  # of 512 tokens each
    assert [in_training._slots(many, n) for n in (64, 512, 1024, 3000, 9999)] == [8, 8, 4, 1, 1]
