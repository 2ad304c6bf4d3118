"""STVG from the files of ST-Align and of VidSTG, and what our rule reads."""

import json

import pytest

from evr1.evals.tasks import stvg
from evr1.evals.tasks.base import Media, Record

# Ten frames a second; the segment starts at 2 s, the event lasts from 1 to 4 s of it.
ST_ALIGN = {
    "video_path": "a/v1.mp4",
    "meta": {
        "split": [20, 99],
        "width": 200,
        "height": 100,
        "time_token": {"<s>": 30, "<e>": 60},
        "spatial_token": {"<bboxes>": {str(f): [20, 10, 40, 20] for f in range(30, 61)}},
    },
    "conversations": [{"value": "<video>\nwho holds the ball?"}, {"value": "..."}],
}
RATES = [{"vid": "v1", "fps": 10}]
VIDSTG = {
    "videos": [
        {
            "video_id": 7,
            "original_video_id": "v1",
            "video_path": "a/v1.mp4",
            "fps": 10,
            "start_frame": 20,
            "end_frame": 99,
            "tube_start_frame": 30,
            "tube_end_frame": 61,
            "target_id": 3,
            "width": 200,
            "height": 100,
            "caption": "a child holds a ball.",
            "qtype": "declar",
        }
    ],
    "trajectories": {"v1": {"3": {str(f): {"bbox": [20, 10, 40, 20]} for f in range(20, 99)}}},
}
BOX = [100, 100, 300, 300]


@pytest.fixture
def samples(tmp_path):
    (tmp_path / "stvg.json").write_text(json.dumps([ST_ALIGN, ST_ALIGN]))
    (tmp_path / "val_annotations.json").write_text(json.dumps(RATES))
    return list(stvg.load(tmp_path))


def answer(start=1.0, end=4.0, boxes=None):
    boxes = {str(s): BOX for s in range(1, 5)} if boxes is None else boxes
    return json.dumps({"time": [start, end], "boxes": boxes})


def results(samples, responses):
    records = [Record(s, stvg.by_ours(s.doc, r)) for s, r in zip(samples, responses, strict=True)]
    assert stvg.aggregate(records[::-1]) == stvg.aggregate(records)
    return stvg.aggregate(records)


def test_loads_both_official_forms(samples, tmp_path):
    assert samples[0].media == (Media("videos/a/v1.mp4", start_s=2.0, end_s=10.0),)
    assert samples[0].doc["question"] == "who holds the ball?"
    assert samples[0].tags == {"qtype": "interrogative"}
    assert stvg.gold_seconds(samples[0].doc) == [1, 2, 3, 4]
    assert stvg.gold_box(samples[0].doc, 2) == pytest.approx(BOX)
    (tmp_path / "stvg.json").rename(tmp_path / "other.json")
    (tmp_path / "test.json").write_text(json.dumps(VIDSTG))
    (sample,) = stvg.load(tmp_path)
    assert sample.tags == {"qtype": "declarative"}
    assert stvg.gold_seconds(sample.doc) == [1, 2, 3, 4]
    assert len(sample.doc["boxes"]) == 31


def test_what_is_missing_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"holds no stvg.json or test.json"):
        list(stvg.load(tmp_path))
    (tmp_path / "stvg.json").write_text(json.dumps([ST_ALIGN]))
    with pytest.raises(ValueError, match=r"holds no val_annotations.json"):
        list(stvg.load(tmp_path))
    (tmp_path / "val_annotations.json").write_text("[]")
    with pytest.raises(ValueError, match=r"row 1: no video v1 in val_annotations.json"):
        list(stvg.load(tmp_path))


@pytest.mark.parametrize(
    "gold",
    [
        answer(),
        f"<answer>{answer()}</answer>",
        f"```json\n{answer()}\n```",
        json.dumps([{"time": float(s), "bbox_2d": BOX, "label": "ball"} for s in range(1, 5)]),
    ],
)
def test_gold_in_every_form_is_right(samples, gold):
    means = results(samples, [gold] * 2)
    assert means["st_align/m_stIoU"] == pytest.approx(1)
    assert means["st_align/m_tIoU"] == pytest.approx(1)
    assert means["vidstg/m_vIoU"] == pytest.approx(1)


def test_damaged_gold_scores_less(samples):
    one_box = results(samples, [answer(boxes={"2": BOX})] * 2)
    assert one_box["st_align/m_stIoU"] == pytest.approx(0.25)
    assert one_box["st_align/m_sIoU"] == pytest.approx(1)
    too_many = {str(s): BOX for s in range(8)}
    assert results(samples, [answer(boxes=too_many)] * 2)["st_align/m_stIoU"] == pytest.approx(0.5)
    late = results(samples, [answer(start=2.5)] * 2)
    assert late["vidstg/m_vIoU"] == pytest.approx(0.5, abs=0.05)
    half = {str(s): [100, 100, 200, 300] for s in range(1, 5)}
    assert results(samples, [answer(boxes=half)] * 2)["st_align/m_stIoU"] == pytest.approx(0.5)
    assert set(results(samples, ["", "I cannot tell"]).values()) == {0.0}


def test_the_authors_tokens(samples):
    box = "<WIDTH-010><HEIGHT-010><WIDTH-030><HEIGHT-030>"
    steps = [f"<TEMP-{step:03}>:[{box}]" for step in range(13, 51)]
    said = f"{{<TEMP-013><TEMP-050>}} {' '.join(steps)}"
    assert stvg.by_st_align(samples[0].doc, said).score == pytest.approx(1, abs=0.05)
    assert stvg.by_st_align(samples[0].doc, answer()).score == 0
