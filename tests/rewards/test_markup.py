"""SVG and HTML: equivalent spellings score 1, damage costs, junk earns next to nothing."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evr1 import rewards
from evr1.rewards import Status, markup
from evr1.rewards.gold import gold_answer
from evr1.rewards.pages import elements

SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">
  <rect x="10" y="20" width="30" height="40" fill="white" stroke="#ff0000"/>
  <g transform="translate(5, 5)"><circle cx="50" cy="50" r="12.5" fill="blue"/></g>
  <path d="M 10 10 L 90 90 Z"/>
  <text x="5" y="95">Stop here</text>
</svg>"""
WORDS = '  <text x="5" y="95">Stop here</text>'
HTML = """<!DOCTYPE html>
<html><head><title>Shop</title><style>a { color: red; }</style></head>
<body class="wide dark"><h1 id="top">Fresh fruit</h1>
<ul><li>Apples</li><li>Pears <b>today</b></li></ul>
<img src="a.png" alt="A pear"><p style="color: #00f; margin: 0 10px">Come in, we are open.</p>
</body></html>"""


def score(kind, response, answer):
    return rewards.score(response, {"problem_type": kind, "answer": answer})


def tag(text):
    return f"<answer>{text}</answer>"


def alike(a, b, read=elements.read_svg):
    return markup.similarity(read(a), read(b))


SAME_SVG = {
    "itself": SVG,
    "order of attributes": SVG.replace('x="10" y="20"', 'y="20" x="10"'),
    "quotes": SVG.replace('"', "'"),
    "space": re.sub(r"\s+", " ", SVG),
    "short hex": SVG.replace("white", "#FFF"),
    "rgb": SVG.replace("blue", "rgb(0, 0, 255)"),
    "numbers": SVG.replace('"12.5"', '"+12.50px"').replace('"10"', '"1e1"'),
    "path spelling": SVG.replace("M 10 10 L 90 90 Z", "M10,10L90,90Z"),
    "end tag": SVG.replace('<path d="M 10 10 L 90 90 Z"/>', '<path d="M 10 10 L 90 90 Z"></path>'),
    "style": SVG.replace('fill="blue"', 'style="fill: #00f"'),
    "comment": SVG.replace("<g ", "<!-- a --><g "),
    "header": '<?xml version="1.0" encoding="utf-16"?>\n<!DOCTYPE svg PUBLIC "a" "b">' + SVG,
    "prefix": SVG.replace("xmlns=", "xmlns:s=").replace("<rect", "<s:rect"),
    "entity": SVG.replace("Stop", "&#83;top"),
}
DAMAGED_SVG = {
    "moved": SVG.replace('x="10"', 'x="15"'),
    "colour": SVG.replace("blue", "navy"),
    "no colour": SVG.replace(' fill="blue"', ""),
    "another shape": SVG.replace("circle", "ellipse"),
    "missing": re.sub("<path.*?/>", "", SVG),
    "twice": SVG.replace("<path", '<path d="M 10 10 L 90 90 Z"/><path'),
    "text": SVG.replace("here", "there"),
    "no text": SVG.replace("Stop here", ""),
    "into the group": SVG.replace("</g>", "").replace('Z"/>', 'Z"/></g>'),
    "order": SVG.replace("  <rect", f"{WORDS}<rect").replace(f"\n{WORDS}\n", "\n"),
    "view box": SVG.replace("0 0 100 100", "0 0 120 100"),
    "path": SVG.replace("L 90 90", "L 90 80"),
    "extra attribute": SVG.replace("<path", '<path opacity="0.5"'),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME_SVG)
def test_the_same_drawing_scores_one(name):
    assert alike(SAME_SVG[name], SVG) == alike(SVG, SAME_SVG[name]) == 1
    assert score("svg-code", tag(SAME_SVG[name]), SVG).overall == 1


@pytest.mark.parametrize("name", DAMAGED_SVG)
def test_damage_to_a_drawing_costs(name):
    assert DAMAGED_SVG[name] != SVG
    assert 0.4 < alike(DAMAGED_SVG[name], SVG) < 1
    assert alike(DAMAGED_SVG[name], SVG) == alike(SVG, DAMAGED_SVG[name])


def test_more_damage_costs_more():
    moved = [alike(SVG.replace('cx="50"', f'cx="{x}"'), SVG) for x in (50, 52, 60, 80, 90)]
    assert moved == sorted(moved, reverse=True)
    assert len(set(moved)) == 4  # beyond a quarter of the drawing, nothing is left of a number
    assert alike(SVG.replace('cx="50"', 'cx="50.01"'), SVG) == 1


def test_a_drawing_at_another_scale_is_nearly_the_same():
    small = '<svg viewBox="0 0 10 10"><rect x="1" y="2" width="3" height="4"/></svg>'
    large = '<svg viewBox="0 0 20 20"><rect x="2" y="4" width="6" height="8"/></svg>'
    wrong = '<svg viewBox="0 0 20 20"><rect x="1" y="2" width="3" height="4"/></svg>'
    assert 0.98 < alike(small, large) < 1
    assert alike(small, wrong) < alike(small, large) - 0.2


SAME_HTML = {
    "itself": HTML,
    "case": re.sub(r"</?\w+", lambda m: m[0].upper(), HTML),
    "attribute case": HTML.replace("class=", "CLASS="),
    "classes": HTML.replace("wide dark", "dark  wide"),
    "end tags left out": HTML.replace("</li>", "").replace("</p>", ""),
    "no wrapper": re.sub("</?(html|head)>", "", HTML),
    "style": HTML.replace("color: #00f; margin: 0 10px", "margin:0 10px;color:blue;"),
    "css": HTML.replace("a { color: red; }", "a{color:red}"),
    "space": HTML.replace("\n", "\n\n   "),
    "void": HTML.replace('pear">', 'pear" />'),
    "quotes": HTML.replace('"top"', "top"),
    "entities": HTML.replace("Apples", "&#65;pples"),
    "comment": HTML.replace("<ul>", "<!-- list --><ul>"),
}
DAMAGED_HTML = {
    "text": HTML.replace("Apples", "Onions"),
    "tag": HTML.replace("h1", "h2"),
    "missing item": HTML.replace("<li>Apples</li>", ""),
    "items swapped": HTML.replace("<li>Apples</li>", "").replace("</ul>", "<li>Apples</li></ul>"),
    "class": HTML.replace("wide dark", "wide"),
    "colour": HTML.replace("#00f", "#ff0"),
    "wrapped": HTML.replace("<ul>", "<div><ul>").replace("</ul>", "</ul></div>"),
    "not bold": HTML.replace("<b>today</b>", "today"),
    "link": HTML.replace("a.png", "b.png"),
    "css": HTML.replace("color: red", "color: tan"),
}


@pytest.mark.parametrize("name", SAME_HTML)
def test_the_same_page_scores_one(name):
    assert alike(SAME_HTML[name], HTML, elements.read_html) == 1
    assert alike(HTML, SAME_HTML[name], elements.read_html) == 1
    assert score("html-code", tag(SAME_HTML[name]), HTML).overall == 1


@pytest.mark.parametrize("name", DAMAGED_HTML)
def test_damage_to_a_page_costs(name):
    assert 0.5 < alike(DAMAGED_HTML[name], HTML, elements.read_html) < 1


CIRCLE = '<circle cx="50" cy="50" r="12.5" fill="blue"/>'
SKELETON_SVG = re.sub(r'\s[\w:-]+="[^"]*"|Stop here', "", SVG)
SKELETON_HTML = re.sub(r">[^<>]+<", "><", re.sub(r'\s\w+="[^"]*"', "", HTML))
JUNK = [
    ("svg-code", "<svg/>", 0.05),
    ("svg-code", '<svg viewBox="0 0 100 100"></svg>', 0.05),
    ("svg-code", SKELETON_SVG, 0.2),
    ("svg-code", f"<svg>{'<rect/>' * 2900}</svg>", 0.05),
    ("svg-code", f"<svg>{CIRCLE * 900}</svg>", 0.05),
    ("svg-code", "<svg>Stop here, see the drawing</svg>", 0.2),
    ("html-code", "<p></p>", 0.05),
    ("html-code", SKELETON_HTML, 0.2),
    ("html-code", f"<body>{'<li>Apples</li>' * 1400}</body>", 0.05),
]


@pytest.mark.parametrize(("kind", "response", "limit"), JUNK)
def test_junk_earns_next_to_nothing(kind, response, limit):
    result = score(kind, tag(response), SVG if kind == "svg-code" else HTML)
    assert result.status is Status.OK
    assert result.accuracy < limit


DEEP = "<g>" * 200 + "</g>" * 200
LAUGHS = '<!DOCTYPE svg [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;">]><svg><text>&b;</text></svg>'
OUTSIDE = '<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg><text>&x;</text></svg>'


@pytest.mark.parametrize(
    ("kind", "response"),
    [
        ("svg-code", tag("<svg><rect></svg>")),
        ("svg-code", tag("<svg/><svg/>")),
        ("svg-code", tag(LAUGHS)),
        ("svg-code", tag(OUTSIDE)),
        ("svg-code", tag(f"<svg>{DEEP}</svg>")),
        ("svg-code", tag(f"<svg>{'<a/>' * 4000}</svg>")),
        ("svg-code", tag(f"<svg>{'x' * 60000}</svg>")),
        ("svg-code", tag("<svg>\ud800</svg>")),
        ("svg-code", tag("<p>text</p>")),
        ("svg-code", tag("a drawing")),
        ("svg-code", tag("")),
        ("svg-code", f"<think>{SVG}"),
        ("svg-code", f"{SVG}\nor\n{SVG}"),  # which of them?
        ("html-code", tag("see above")),
        ("html-code", tag("1 < 2 and 3 > 2")),
        ("html-code", tag("<!-- <p>x</p> -->")),
        ("html-code", tag(f"<div>{'<div>' * 200}")),
    ],
)
def test_what_is_no_document_is_unparsed(kind, response):
    result = score(kind, response, SVG if kind == "svg-code" else HTML)
    assert (result.status, result.overall) == (Status.UNPARSED, 0)


@pytest.mark.parametrize(
    ("response", "form"),
    [
        (tag(f"\n{SVG}\n"), 1),
        (tag(f"```svg\n{SVG}\n```"), 0),
        (tag(f"Here it is: {SVG}"), 0),
        (f"Here it is:\n```xml\n{SVG}\n```\nDone.", 0),
        (SVG, 0),
        (f"So {SVG} it is", 0),
        (f"<think><svg/></think>{SVG}", 0),
    ],
)
def test_where_a_drawing_is_found(response, form):
    result = score("svg-code", response, SVG)
    assert (result.accuracy, result.format) == (1, form)


BOMBS = {
    "comments": "<p>" + "<!--" * 12000,
    "tags": "<p>" + "<a " * 16000,
    "references": "<p>" + "&" * 49000,
    "declarations": "<p>" + "<![" * 16000,
    "ends": "<p>" + "</" * 24000,
    "quotes": '<p a="' * 8000,
    "attributes": "<p " + "a='" * 16000,
    "numbers": f'<svg><path d="{"1" * 49000}"/></svg>',
    "signs": f'<svg><path d="{"1e-" * 16000}"/></svg>',
    "properties": f'<svg style="{"a:1;" * 12000}"/>',
    "texts": "<p>" + "<b>ab</b>c" * 900,
    "one text": "<p>" + "ab " * 16000,
    "shapes": "<svg>" + '<a x="1"/><b x="2"/>' * 1400 + "</svg>",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_answered_at_once(name):
    for kind, truth in (("html-code", HTML), ("svg-code", SVG), ("html-code", BOMBS["texts"])):
        start = time.process_time()
        result = score(kind, tag(BOMBS[name]), truth)
        assert time.process_time() - start < 2
        assert result.status is not Status.ERROR


def test_a_truth_that_is_none_is_refused():
    for kind, answer in (("svg-code", "<svg>"), ("svg-code", 5), ("html-code", "plain")):
        with pytest.raises(ValueError, match="is no (SVG|HTML); correct the row"):
            rewards.check_row({"problem_type": kind, "answer": answer})


def test_gold_answers():
    for kind, answer in (
        ("svg-code", SVG),
        ("svg-code", f"```svg\n{SVG}\n```"),
        ("html-code", tag(HTML)),
    ):
        row = {"problem_type": kind, "answer": answer}
        assert rewards.score(gold_answer(row), row).overall == 1


NAMES = st.sampled_from(["g", "rect", "circle", "text"])
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["x", "r", "fill", "id"]),
    st.sampled_from(["1", "2.5", "90", "red", "#00f", "a"]),
    max_size=3,
)


def write(name, found, parts):
    attributes = "".join(f" {k}='{v}'" for k, v in found.items())
    return f"<{name}{attributes}>{''.join(parts)}</{name}>"


TREES = st.recursive(
    st.sampled_from(["one", "two words", ""]),
    lambda inner: st.builds(write, NAMES, ATTRIBUTES, st.lists(inner, max_size=4)),
    max_leaves=12,
).map(lambda inner: f"<svg>{inner}</svg>")


@settings(max_examples=200, deadline=None)
@given(TREES, TREES)
def test_similarity_is_symmetric_bounded_and_one_for_the_same_only(a, b):
    for read in (elements.read_svg, elements.read_html):
        left, right = read(a), read(b)
        value = markup.similarity(left, right)
        assert value == pytest.approx(markup.similarity(right, left))
        assert 0 <= value <= 1
        assert (value == 1) is (left == right)
        assert markup.similarity(left, left) == 1
