"""Charades-STA from its official files, and what our rule reads."""

import json

import miniatures
import pytest

from evr1.evals.tasks import charades_sta
from evr1.evals.tasks.base import Media, Record, Show


@pytest.fixture
def samples(tmp_path):
    miniatures.write("charades_sta", tmp_path)
    return list(charades_sta.load(tmp_path))


def results(samples, responses, profile="evr1"):
    rule = charades_sta.TASK.rules[profile]
    records = [Record(s, rule(s.doc, r)) for s, r in zip(samples, responses, strict=True)]
    return charades_sta.aggregate(records)


def test_loads_the_official_files(samples, tmp_path):
    assert samples[0].id == "MINI0.mp4:the triangle comes in."
    assert samples[3].media == (Media("Charades_v1_480/MINI1.mp4"),)
    json.dumps([s.doc for s in samples])
    miniatures.change_row(tmp_path / "data" / "test-00000-of-00001.parquet", timestamp=[5, 5])
    with pytest.raises(ValueError, match=r"row 1: timestamp \[5.0, 5.0\] is no \[start, end\]"):
        list(charades_sta.load(tmp_path))
    with pytest.raises(ValueError, match="holds no data/test"):
        list(charades_sta.load(tmp_path / "elsewhere"))


def test_half_of_a_span_is_half_right(samples):
    for form in ('```json\n{{"start": {0}, "end": {1}}}\n```', "[{0}, {1}]"):
        half = [form.format(s.doc["timestamp"][0], sum(s.doc["timestamp"]) / 2) for s in samples]
        means = results(samples, half)
        assert means == {"mIoU": pytest.approx(0.5), "R1@0.3": 1, "R1@0.5": 1, "R1@0.7": 0}


def test_what_is_no_span_is_wrong(samples):
    assert results(samples, ["It happens at 10 - 20 or 30 - 40."] * 4)["mIoU"] == 0
    constant = results(samples, ["0 - 6"] * 4)
    assert constant["mIoU"] == pytest.approx((1.5 + 3.6 + 1.2 + 2.1) / 6 / 4)


def test_prompts_ask_for_seconds(samples):
    for prompt in charades_sta.TASK.prompts.values():
        shown, text = prompt(samples[0])
        assert shown == Show(0)
        assert isinstance(text, str)
        assert "the triangle comes in." in text
