"""ODV-Bench and LiveSports-3K-QA from their official files, and what our rule reads."""

import json

import miniatures
import pytest

from evr1.evals.tasks import livesports3k_qa, odv_bench
from evr1.evals.tasks.base import Media, Record

SPORTS = {
    "video_id": "v1",
    "video": "v1.mp4",
    "video_start": 3.5,
    "video_end": 9.0,
    "question_id": "e1_q1",
    "q_type": "Who",
    "OCR": 1,
    "question": "Who falls?",
    "options": ["A: The coach.", "B: The man in gray.", "C: The man in red.", "D: Nobody."],
    "answer": "C",
}


def means_of(task, samples, responses, profile="evr1"):
    rule = task.rules[profile]
    records = [Record(s, rule(s.doc, r)) for s, r in zip(samples, responses, strict=True)]
    means = task.aggregates[profile](records)
    assert task.aggregates[profile](records[::-1]) == means
    return means


@pytest.fixture
def driving(tmp_path):
    miniatures.write("odv_bench", tmp_path)
    return list(odv_bench.load(tmp_path))


@pytest.fixture
def sports(tmp_path):
    rows = [SPORTS, SPORTS | {"OCR": 0, "q_type": "When", "answer": "A"}]
    (tmp_path / "sports3k-qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(livesports3k_qa.load(tmp_path))


def test_loads_the_three_files_of_odv_bench(driving, tmp_path):
    assert [s.id for s in driving][:3] == ["static_0", "static_1", "dynamic_0"]
    assert driving[1].media == (Media("videos/drives/0.mp4", start_s=0.5, end_s=2.5),)
    assert driving[1].tags["subsubtask"] == "Far"
    name = odv_bench.CONFIGS["static"]
    path = tmp_path / "anno" / "eval" / "ODVBench" / f"{name}.json"
    miniatures.change_row(path, answer="a cow")
    with pytest.raises(ValueError, match="row 1: answer 'a cow' is none of red, blue"):
        list(odv_bench.load(tmp_path))
    path.unlink()
    with pytest.raises(ValueError, match=f"holds no {name}"):
        list(odv_bench.load(tmp_path))


def test_odv_bench_by_file_and_task(driving):
    gold = [odv_bench.gold(s.doc) for s in driving]
    means = means_of(odv_bench.TASK, driving, [*gold[:3], "", "", ""])
    assert means["accuracy"] == 0.5
    assert means["config/static"] == 1
    assert means["config/multi_agent"] == 0
    assert means["subsubtask/Far"] == pytest.approx(1 / 3)
    texts = [s.doc["answer"] for s in driving]
    assert means_of(odv_bench.TASK, driving, texts)["accuracy"] == 1
    assert means_of(odv_bench.TASK, driving, texts, "official")["accuracy"] == 0


def test_loads_livesports(sports, tmp_path):
    assert [s.id for s in sports] == ["v1_3.5_e1_q1", "v1_3.5_e1_q1#2"]
    assert sports[0].media == (Media("videos/v1.mp4", start_s=3.5, end_s=9.0),)
    assert sports[1].tags == {"q_type": "When", "OCR": "no"}
    bad = {k: v for k, v in SPORTS.items() if k != "video_start"}
    (tmp_path / "sports3k-qa.jsonl").write_text(json.dumps(bad))
    with pytest.raises(ValueError, match="row 1: no video_start or begin"):
        list(livesports3k_qa.load(tmp_path))


def test_livesports_nested_by_clip(tmp_path):
    miniatures.write("livesports3k_qa", tmp_path)
    samples = list(livesports3k_qa.load(tmp_path))
    assert [s.id for s in samples][:2] == ["match_0.5_e0_q0", "match_0.5_e0_q1"]
    assert samples[5].media == (Media("videos/match.mp4", start_s=3.0, end_s=5.5),)
    assert len({s.cluster for s in samples}) == 1


def test_livesports_chooses_a_letter_where_the_authors_do(sports):
    task = livesports3k_qa.TASK
    choices = task.choices["official"]
    assert task.choices.keys() < task.prompts.keys()
    assert (choices.begin, choices.continuations) == ("Answer:", (" A", " B", " C", " D"))
    assert task.prompts["official"](sports[0]) == task.prompts["official_generated"](sports[0])
    responses = [text.strip() for text in choices.continuations]
    for rule in task.rules.values():
        scores = [rule(SPORTS, response).score for response in responses]
        assert scores == [0, 0, 1, 0]


def test_livesports_by_letter_and_by_text(sports):
    task = livesports3k_qa.TASK
    assert means_of(task, sports, ["C", "<answer>A</answer>"])["accuracy"] == 1
    assert means_of(task, sports, ["C: The man in red.", "Answer"], "official")["accuracy"] == 1
    means = means_of(task, sports, ["Cannot tell", ""])
    assert (means["accuracy"], means["OCR/yes"]) == (0, 0)
    logits = [0.0, 1.0, 3.0, 3.0, 9.0]
    assert livesports3k_qa.best_letter(logits, [0, 1, 2, 3]) == 2
