"""Prompts: they ask in a form that scores 1, in words that fit the media, and are replaceable."""

import json
import re

import pytest
from repo import TINY
from rows_rig import make_row

from evr1 import rewards
from evr1.data import prompts
from evr1.data.processor import Processor
from evr1.data.records import Turn
from evr1.formats import problem_types
from evr1.rewards.gold import gold_answer

BOX = [1, 2, 3, 4]
ASKED_POINTS = "[[x, y], [x, y], [x, y]]"
ON, OFF = [[1.5, 2.5], [2, 3], [2.5, 3.5]], [[9, 9], [8, 8], [7, 7]]
ANSWERS = {
    "multiple choice": {"letter": "B"},
    "numerical": {"number": 3},
    "regression": {"number": 2.5},
    "boolean": {"Yes": "Yes"},
    "ocr": {"text": "STOP 停车"},
    "math": {"result": "1/2"},
    "temporal grounding": {"start": 1.5, "end": 3},
    "spatial grounding": {"x1": 1, "y1": 2, "x2": 3, "y2": 4},
    "spatial-temporal grounding": {"start": 1, "end": 2, '"second": [x1, y1, x2, y2], ...': None},
    "tracking": {'"second": [x1, y1, x2, y2], ...': None},
    "open-ended": {"answer": "a cat"},
    "preference": {"Response 1": "Response 1"},
    "segmentation": {},  # see asked_values
    "code": {"code": "print(6 * 7)"},
    "svg-code": {"...": "<circle r='1'/>"},
    "html-code": {"...": "<p>Stop</p>"},
}
TRUTHS = {
    "temporal grounding": {"time": [1.5, 3]},
    "spatial grounding": {"boxes": BOX},
    "spatial-temporal grounding": {"time": [1, 2], "boxes": {"1": BOX, "2": BOX}},
    "tracking": {"boxes": {"1": BOX, "2": BOX}},
    "segmentation": {"time": 4, "boxes": BOX, "positive_points": ON, "negative_points": OFF},
    "svg-code": "<svg><circle r='1'/></svg>",
    "html-code": "<html><p>Stop</p></html>",
}


def render(problem_type: str, **fields) -> str:
    options = {"thinking": False, "box_scale": "pixels"}
    options |= {k: fields.pop(k) for k in options if k in fields}
    row = make_row("<video>What?", problem_type, **{"data_type": "video", **fields})
    return prompts.render_task(row, prompts.built_in_template(), **options)


# the same box of a medium of 10 x 20 pixels, and what its x and y are multiplied by
BOXES = {"pixels": BOX, "unit": [0.1, 0.1, 0.3, 0.2], "thousand": [100, 100, 300, 200]}
SCALES = {"pixels": (1, 1), "unit": (0.1, 0.05), "thousand": (100, 50)}
SIZED = {"width": 10, "height": 20, "box_scale": "pixels"}


def asked_values(problem_type, data_type, box_scale):
    """What stands in the asked form -> what a right answer puts there."""
    corners = dict(zip(("x1", "y1", "x2", "y2"), BOXES[box_scale], strict=True))
    if problem_type == "spatial grounding":
        return corners
    if problem_type != "segmentation":
        return ANSWERS[problem_type]
    x, y = SCALES[box_scale]
    points = {
        f'"{name}_points": {ASKED_POINTS}': f'"{name}_points": {[[u * x, v * y] for u, v in given]}'
        for name, given in (("positive", ON), ("negative", OFF))
    }
    return ({"second": 4} if data_type == "video" else {}) | corners | points


@pytest.mark.parametrize("box_scale", BOXES)
@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("data_type", ["video", "image", "mixed", "text"])
@pytest.mark.parametrize("problem_type", rewards.SCORERS)
def test_the_asked_form_filled_in_scores_one(problem_type, data_type, thinking, box_scale):
    settings = {"thinking": thinking, "box_scale": box_scale}
    text = render(problem_type, data_type=data_type, extra=SIZED, **settings)
    before, form = re.search(r"(<think>.*?)?<answer>(.*?)</answer>", text, re.DOTALL).groups()
    assert bool(before) == thinking
    values = asked_values(problem_type, data_type, box_scale)
    for name, value in values.items():
        assert name in form
        box = json.dumps(BOXES[box_scale])
        form = form.replace(name, f'"1": {box}, "2": {box}' if value is None else str(value))
    truth = TRUTHS.get(problem_type, next(iter(values.values())))
    if problem_type == "segmentation" and data_type != "video":
        truth = {k: v for k, v in truth.items() if k != "time"}
    if isinstance(truth, dict) and box_scale == "pixels":
        assert json.loads(form) == truth
    row = {"problem_type": problem_type, "answer": truth, **SIZED}
    reasoning = "<think>First <answer>this</answer>, no.</think>\n" if thinking else ""
    result = rewards.score(f"{reasoning}<answer>{form}</answer>", row, box_scale=box_scale)
    assert (result.overall, result.format) == (pytest.approx(1), 1)
    gold = gold_answer(row, **settings)
    assert rewards.score(gold, row, box_scale=box_scale).overall == 1
    wrong = rewards.score("<answer>nothing of it</answer>", row, box_scale=box_scale)
    assert wrong.overall < 0.5


@pytest.mark.parametrize("problem_type", problem_types.TYPES)
def test_the_question_comes_once_and_the_form_last(problem_type):
    text = render(problem_type)
    assert text.startswith("<video>What?\n")
    assert text.count("What?") == 1
    assert text.endswith(("</answer>", "Tie</answer>"))
    assert "\n\n" not in text


def test_segmentation_of_an_image_asks_for_no_time():
    form = re.search(r"<answer>(.*?)</answer>", render("segmentation", data_type="image"))[1]
    assert form.startswith('{"boxes": ')
    assert "second" not in render("segmentation", data_type="image")


def test_code_that_is_called_is_asked_for_by_name():
    assert "a Python program" in render("code")
    assert "a Python function add" in render("code", extra={"fn_name": "add"})


def test_short_prompts():
    assert render("numerical").split("\n")[1:] == [
        "From the video, reply with a number: <answer>number</answer>"
    ]


def test_options_are_listed():
    text = render("multiple choice", options=("A. Red", "B. Blue"))
    assert text.split("\n")[1:3] == ["A. Red", "B. Blue"]
    assert "letter" in render("math", options=("A. 1", "B. 2"))


@pytest.mark.parametrize(
    ("data_type", "start"),
    [("video", "From the video"), ("image", "From the image"), ("mixed", "From the inputs")],
)
def test_wording_fits_the_media(data_type, start):
    assert render("ocr", data_type=data_type).split("\n")[-1].startswith(start)
    assert render("ocr", data_type="text").split("\n")[-1].startswith("Reply with")


def test_thinking_is_asked_for():
    assert "<think>" not in render("ocr")
    assert "First think between <think> and </think>." in render("ocr", thinking=True)


@pytest.mark.parametrize(
    ("scale", "words"),
    [("pixels", "in pixels"), ("unit", "0 to 1"), ("thousand", "0 to 1000")],
)
@pytest.mark.parametrize(
    "problem_type", ["spatial grounding", "spatial-temporal grounding", "tracking", "segmentation"]
)
def test_coordinate_frame_is_stated(problem_type, scale, words):
    assert words in render(problem_type, box_scale=scale)


def test_unknown_box_scale_is_refused():
    with pytest.raises(ValueError, match="box_scale='inches' is not one of pixels"):
        Processor.from_hf(str(TINY), box_scale="inches")


def test_template_from_a_file(tmp_path):
    path = tmp_path / "own.jinja"
    path.write_text("{{ problem }} ({{ extra.level }}) {{ medium }}")
    processor = Processor.from_hf(str(TINY), template=str(path))
    row = make_row("Why?", "math", data_type="image", extra={"level": 3})
    assert processor.prompt_text(row) == "Why? (3) image"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ problem", "rows.jsonl:3: the prompt template fails"),
        ("{{ problem.__class__.__mro__ }}", "rows.jsonl:3: the prompt template fails.*unsafe"),
        ("{{ missing.field }}", "rows.jsonl:3: the prompt template fails.*'missing' is undefined"),
        (" ", "rows.jsonl:3: the prompt is empty"),
    ],
)
def test_bad_templates_name_the_row(template, message):
    with pytest.raises(ValueError, match=message):
        prompts.render_task(make_row("Why?"), template, thinking=False, box_scale="pixels")


def test_chat_template_as_transformers_renders_it():
    template = (
        "{% for m in messages %}{% for p in m.content %}[{{ p.type }}]{{ p.text }}"
        "{% endfor %}{% endfor %}{% generation %}{{ eos_token }}{% endgeneration %}"
        "{{ {'a': '<é>'} | tojson }}{% for i in [1, 2] %}{% if i == 2 %}{% break %}{% endif %}"
        "{{ i }}{% endfor %}{% if add_generation_prompt %}!{% endif %}"
    )
    text = prompts.render_chat(template, [Turn("user", "a <image>b<video>")], {"eos_token": "<e>"})
    assert text == '[text]a [image][text]b[video]<e>{"a": "<é>"}1!'


def test_chat_template_may_refuse():
    with pytest.raises(ValueError, match="the chat template fails: only text"):
        prompts.render_chat("{{ raise_exception('only text') }}", [Turn("user", "x")], {})
