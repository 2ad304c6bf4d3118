"""The page of a run in a real browser: clicks, filters, what the console says, 400 px, dark."""

import re
import threading

import browser as rig
import numpy as np
import pytest
import screenshots
from pages import NASTY
from repo import ROOT
from report_rig import METRICS, build, make_run, metric, rollout

from evr1.data.shown import Frame, Shown
from evr1.report.serve import Live, Server

pytestmark = pytest.mark.skipif(rig.PATH is None, reason=rig.WHY_NOT)
BOX = '{"boxes": {"2": [32, 0, 64, 24]}}'


def frames(split, name):
    picture = np.full((48, 64, 3), 90, np.uint8)
    return Shown([Frame(picture, 0.5), Frame(picture, 2.0)], size=(64, 48))


def records():
    """Twenty-four prompts over two steps: right, wrong and nasty ones, a track, a long one."""
    out = [
        rollout(1 + i // 12, f"p{i}", completion=f"<answer>{i}</answer>", media=[f"clips/c{i}.mp4"],
                score={"overall": float(i % 2), "accuracy": float(i % 2)})
        for i in range(22)
    ]  # fmt: skip
    track = {"problem_type": "tracking", "answer": {"boxes": {"2": [16, 0, 32, 24]}}}
    out += [rollout(2, "track", completion=BOX, extracted=BOX, **track)]
    out += [rollout(2, NASTY, prompt=NASTY, completion=NASTY + " word" * 400, extracted=NASTY)]
    return out


@pytest.fixture(scope="module")
def browser():
    with rig.Browser() as one:
        yield one


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The address of a page of these records."""
    run = make_run(tmp_path_factory.mktemp("run"), records())
    build(run, frames)
    return (run / "report.html").as_uri()


def count(page):
    return page.text("#count")[0]


def test_filters_search_and_pages(browser, report):
    page = browser.open(report)
    everything = "24 completions of 24 prompts"
    assert count(page) == everything
    page.choose("select[name=result]", "wrong")
    assert count(page) == "11 completions of 11 prompts"
    assert set(page.text("#groups .pill")) == {"✗ wrong"}
    page.choose("select[name=result]", "")
    page.choose("select[name=step]", "1")
    assert count(page) == "12 completions of 12 prompts"
    page.choose("select[name=step]", "")
    page.choose("select[name=order]", "high")
    assert page.text("#groups .pill")[0] == "✓ right"
    page.type("input[type=search]", "c17.mp4")
    assert count(page) == "1 completion of 1 prompt"
    assert page.text("#groups mark") == ["c17.mp4"]
    page.eval("document.querySelector('input[type=search]').select()")
    page.call("Input.insertText", text="")
    assert count(page) == everything
    shown = page.text("#groups .tags")
    page.click("#pages button", "Next")
    assert page.text("#pages span") == ["2 of 3"]
    assert not set(shown) & set(page.text("#groups .tags"))
    page.type("input[type=search]", "nobody wrote this")
    assert count(page) == "Nothing fits these filters."
    assert page.errors == []


def test_curves_tables_and_what_opens(browser, report):
    page = browser.open(report)
    assert len(page.text("#charts svg")) >= 2
    page.click("#charts details summary", "Numbers")
    page.wait("document.querySelector('#charts details[open] table') !== null")
    page.click("#all summary", "Every metric")
    page.wait("document.querySelectorAll('#all-charts svg').length >= 5")
    page.click("section details summary", "config.json")
    assert '"learning_rate"' in "".join(page.text("section details pre"))
    page.type("input[type=search]", "word")  # of the nasty one, which is text and nothing else
    assert page.eval("document.querySelectorAll('#groups img[src=x]').length") == 0
    assert "<script>alert('x')" in page.text("#groups .text")[0]
    page.click("#groups button", "Show all")
    assert page.text("#groups button.plain")[-1] == "Show less"
    assert page.errors == []


def test_boxes_are_drawn_on_frames(browser, report):
    page = browser.open(report)
    page.choose("select[name=type]", "tracking")
    assert page.eval("document.querySelectorAll('#groups .frames img, #groups img').length") == 2
    drawn = "document.querySelectorAll('#groups rect, #groups polygon').length"
    before = page.eval(drawn)
    assert before
    assert "0.5" in " ".join(page.text("#groups"))  # seconds under frames
    page.click("#groups .frames, #groups figure, #groups img")
    page.click("#groups li button")  # the answer's places
    assert page.eval(drawn) >= before
    assert page.errors == []


@pytest.mark.parametrize("width", [400, 1280])
def test_narrow_and_dark(browser, report, width):
    page = browser.open(report, width=width, dark=True)
    page.click("#all summary", "Every metric")
    assert page.eval("document.documentElement.scrollWidth") <= width
    light = """(color => color.match(/[\\d.]+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0))"""
    style = "getComputedStyle(document.body)"
    assert page.eval(f"{light}({style}.backgroundColor)") < 150
    assert page.eval(f"{light}({style}.color)") > 450
    cut = """[...document.querySelectorAll('button, select, input, summary')].filter(n => {
      const box = n.getBoundingClientRect();
      return box.width && (box.right > innerWidth + 1 || box.left < -1);
    }).map(n => n.outerHTML)"""
    assert page.eval(cut) == []  # whatever can be clicked is within the window
    assert page.errors == []


def test_the_live_page_follows_and_keeps_filters(browser, tmp_path):
    run = make_run(tmp_path / "run", records())
    with Server(Live(run, frames), 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            page = browser.open(server.address)
            page.wait("document.querySelector('[role=status]') !== null")
            page.choose("select[name=result]", "wrong")
            page.eval("window.before = true")
            make_run(run, [*records(), rollout(3, "new", score={"overall": 0.0, "accuracy": 0.0})],
                     [*METRICS, metric(3, reward__overall=0.5)])  # fmt: skip
            page.wait("window.before === undefined && document.readyState === 'complete'")
            page.wait("document.querySelector('#count')?.innerText.startsWith('12 ')")
            assert page.eval("document.querySelector('select[name=result]').value") == "wrong"
            page.click(".live input")  # no longer by itself
            page.eval("window.before = true")
            make_run(run, records())
            page.wait("document.querySelector('[role=status]').innerText.includes('new')")
            assert page.eval("window.before") is True
            assert page.errors == []
        finally:
            server.shutdown()
            thread.join()


def test_the_pictures_of_the_docs_are_made_by_a_script(tmp_path):
    run = make_run(tmp_path / "run", records())
    build(run, frames)
    made = screenshots.make(run / "report.html", tmp_path / "images")
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in made)
    names = {file.name for file in made}
    text = "".join(file.read_text("utf-8") for file in (ROOT / "docs").rglob("*.md"))
    assert set(re.findall(r"!\[[^]]*\]\(images/([^)]+)\)", text)) == names
