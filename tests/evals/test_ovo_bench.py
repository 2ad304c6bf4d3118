"""OVO-Bench from its official file, what our rule reads, and its three averages."""

import miniatures
import pytest

from evr1.evals.tasks import ovo_bench
from evr1.evals.tasks.base import Media, Record
from evr1.evals.tasks.kits import streamforest

FILE = "data/ovo_bench_new.json"
FORWARD = ["9_0", "9_1", "10_0", "10_1", "11_0", "11_1", "11_2"]  # places of REC, SSR and CRR


@pytest.fixture
def mini(tmp_path):
    return miniatures.write("ovo_bench", tmp_path)


@pytest.fixture
def samples(mini, tmp_path):
    return list(ovo_bench.load(tmp_path))


def results(samples, responses, profile="evr1"):
    rule = ovo_bench.TASK.rules[profile]
    records = [Record(s, rule(s.doc, r)) for s, r in zip(samples, responses, strict=True)]
    return ovo_bench.aggregate(records)


def test_loads_the_official_file(samples, tmp_path):
    assert [s.id for s in samples] == [*(str(i) for i in range(9)), *FORWARD]
    assert samples[10].media == (Media("src_videos/walks/2.mp4", end_s=5.0),)
    assert samples[9].cluster == samples[10].cluster == "walks/2.mp4"
    assert samples[10].doc["test_info"] == [{"realtime": 4.5, "count": 12}]
    assert samples[3].tags == {"task": "OJR", "category": "realtime"}
    (tmp_path / "chunked_videos").mkdir()
    assert list(ovo_bench.load(tmp_path))[10].media == (Media("chunked_videos/9_1.mp4"),)


@pytest.mark.parametrize(
    ("place", "fields", "error"),
    [
        (0, {"gt": 4}, "gt 4 is the place of no option"),
        (0, {"task": "ABC"}, "task 'ABC' is none of EPM"),
        (9, {"test_info": [{"realtime": 1, "count": "x"}]}, "count 'x' is no integer"),
        (11, {"test_info": [{"realtime": 1, "type": 2}]}, "type 2 is not 0 or 1"),
    ],
)
def test_a_wrong_row_is_one_line(mini, tmp_path, place, fields, error):
    miniatures.change_row(tmp_path / FILE, place, **fields)
    with pytest.raises(ValueError, match=error):
        list(ovo_bench.load(tmp_path))


def test_what_says_nothing_is_wrong_for_us_and_right_for_them(samples):
    tricks = ["ABCDE Yes No"] * 9 + ["", ""] + ["Nothing Yes"] * 5
    assert results(samples, tricks)["mean_of_categories"] == 0
    official = results(samples, tricks, "official")
    assert official["mean_of_categories"] == pytest.approx((1 + 1 + 2 / 3) / 3)


def test_three_averages(samples, mini):
    wrong = {"1", "9_1"}  # all of HLD, half of REC
    gold = [
        mini.golds[s.id].damaged if s.id in wrong else mini.golds[s.id].forms[0] for s in samples
    ]
    means = results(samples, gold)
    assert means["category/backward"] == pytest.approx(2 / 3)
    assert means["category/forward"] == pytest.approx(5 / 6)
    assert means["mean_of_categories"] == pytest.approx((2 / 3 + 1 + 5 / 6) / 3)
    assert means["mean_of_tasks"] == pytest.approx((10 + 0 + 0.5) / 12)
    assert means["mean_of_backward_and_realtime"] == pytest.approx((2 / 3 + 1) / 2)
    assert means["micro"] == pytest.approx(14 / 16)


def test_the_authors_lines():
    rows = {
        "backward": [{"task": "EPM", "response": "(B)", "ground_truth": "B"}],
        "realtime": [{"task": "OJR", "response": None, "ground_truth": "B"}],
        "forward": [{"task": "REC", "test_info": [{"response": "3 of 4", "count": 34}]}],
    }
    lines = ovo_bench.printed({}, rows)
    assert lines[:2] == ["Task: EPM, Acc: 100.00", "Backward Avg.: 100.00"]
    assert lines[-1] == "Total Avg.: 66.67"


@pytest.mark.parametrize(
    ("response", "letter"),
    [("B. a pan\n", "B"), ("B.", "B"), ("I see e.g. a pan", "A"), ("**d**", "D"), ("F. x", "f x")],
)
def test_letters_that_streamforest_reads(response, letter):
    assert streamforest.read_letter(response) == letter
