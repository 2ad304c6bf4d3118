"""The order of rows: several sources by weight, curriculum, exact positions."""

import numpy as np
import pytest
from collect_rig import row

from evr1.data.order import Source, draw_order, pass_rate


def take(order, count):
    return [int(order[i]) for i in range(count)]


def test_one_source_is_drawn_whole_in_every_epoch_in_another_order():
    order = draw_order([row(i) for i in range(6)], seed=1)
    epochs = [take(order, 18)[i : i + 6] for i in (0, 6, 12)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_sources_are_mixed_by_weight_in_every_window():
    """Rows 0 to 9 with weight .75, 10 to 12 with .25: 3 and 1 of every 4, whatever their sizes."""
    rows = [row(i) for i in range(13)]
    order = draw_order(rows, sources=[Source(10, 0.75), Source(3, 0.25)], seed=3)
    drawn = np.array(take(order, 400)).reshape(-1, 4)
    assert ((drawn >= 10).sum(axis=1) == 1).all()
    small = drawn[drawn >= 10]
    assert all(sorted(small[i : i + 3]) == [10, 11, 12] for i in range(0, 99, 3))
    large = drawn[drawn < 10]
    assert all(sorted(large[i : i + 10]) == list(range(10)) for i in range(0, 300, 10))


def test_the_order_follows_from_the_seed():
    rows, sources = [row(i) for i in range(20)], [Source(10, 0.5), Source(10, 0.5)]
    orders = [take(draw_order(rows, sources=sources, seed=s), 40) for s in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    own = [i - 10 for i in orders[0] if i >= 10]
    assert own != [i for i in orders[0] if i < 10]  # sources do not share their order


@pytest.mark.parametrize(("curriculum", "sign"), [("easy_first", -1), ("hard_first", 1)])
def test_a_curriculum_goes_by_pass_rate_and_breaks_ties_by_seed(curriculum, sign):
    rates = [0.5, 0.125, 0.875, 0.5, 0.5, 0.25, 0.5]
    rows = [row(i, pass_rate=r) for i, r in enumerate(rates)]
    orders = [take(draw_order(rows, curriculum=curriculum, seed=s, epochs=1), 7) for s in range(4)]
    for order in orders:
        assert [rates[i] for i in order] == sorted(rates, key=lambda r: sign * r)
    assert len({tuple(order) for order in orders}) > 1


def test_a_curriculum_repeats_itself_and_stays_within_its_source():
    rows = [row(i, pass_rate=i / 10) for i in range(6)]
    sources = [Source(3, 0.5), Source(3, 0.5)]
    assert take(draw_order(rows, curriculum="easy_first"), 12) == [5, 4, 3, 2, 1, 0] * 2
    drawn = take(draw_order(rows, curriculum="hard_first", sources=sources), 12)
    assert [i for i in drawn if i < 3] == [0, 1, 2, 0, 1, 2]
    assert [i for i in drawn if i >= 3] == [3, 4, 5, 3, 4, 5]


@pytest.mark.parametrize("value", [None, "0.5", True, -0.1, 1.5, float("nan")])
def test_a_row_without_a_pass_rate_is_refused_by_name(value):
    with pytest.raises(ValueError, match=r"rows.jsonl:8: pass_rate: got .*evr1 filter"):
        pass_rate(row(7, pass_rate=value))
    assert pass_rate(row(7, pass_rate=1)) == 1.0


def test_several_sources_have_no_last_epoch():
    with pytest.raises(ValueError, match="give epochs=None"):
        draw_order([row(0), row(1)], sources=[Source(1, 0.5), Source(1, 0.5)], epochs=1)
