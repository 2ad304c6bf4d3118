"""Pages: what a browser shows alike is alike, however it is written; an empty page is no form."""

import re
import time

import pytest

from evr1 import rewards
from evr1.rewards import markup
from evr1.rewards.pages import elements

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="UTF-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Zoo</title><style>
body { font-family: Arial; color: #333333; /* dark */ }
.card { padding: 0px 10px; }
</style></head><body class="main wide"><h1 id="top">Hours &amp; prices</h1>
<p>Open nine to five</p><ul><li>Lions</li><li>Bears</li></ul>
<table><thead><tr><th>Day</th></tr></thead>
<tbody><tr><td>Monday</td><td style="color: red; margin: 0 10px">9:00</td></tr></tbody></table>
<form action="/go" method="post">
<input type="text" name="q" required><button type="submit">Go</button></form>
<img src="a.png" alt="A lion"><br><hr></body></html>"""
SAME = {
    "lang": PAGE.replace(' lang="en"', ""),
    "lang de": PAGE.replace('"en"', '"de"'),
    "no doctype": PAGE.replace("<!DOCTYPE html>\n", ""),
    "doctype41": PAGE.replace(
        "<!DOCTYPE html>",
        '<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 4.01//EN" "http://www.w3.org/TR/html4/strict.dtd">',
    ),
    "no meta": re.sub("<meta[^>]*>", "", PAGE),
    "meta equiv": PAGE.replace(
        '<meta charset="UTF-8">',
        '<meta http-equiv="Content-Type" content="text/html; charset=utf-8">',
    ),
    "no html": re.sub("</?html[^>]*>", "", PAGE),
    "no head": re.sub("</?head>", "", PAGE),
    "tbody": re.sub("</?tbody>", "", PAGE),
    "upper": re.sub(r"</?\w+", lambda m: m[0].upper(), PAGE),
    "self": PAGE.replace("<br>", "<br/>")
    .replace("<hr>", "<hr />")
    .replace('lion">', 'lion"/>')
    .replace("required>", "required />"),
    "required": PAGE.replace("required", 'required="required"'),
    "required true": PAGE.replace("required", 'required="true"'),
    "required empty": PAGE.replace("required", 'required=""'),
    "quotes": PAGE.replace('"', "'"),
    "noquotes": PAGE.replace('"top"', "top").replace('"q"', "q"),
    "entity": PAGE.replace("&amp;", "&#38;"),
    "entity2": PAGE.replace("Open", "&#x4F;pen"),
    "amp": PAGE.replace("&amp;", "&"),
    "comments": PAGE.replace("<ul>", "<!-- x --><ul><!-- y -->"),
    "ws": PAGE.replace("><", ">\n   <"),
    "ws2": re.sub(r"\s+", " ", PAGE),
    "nbsp": PAGE.replace("nine to", "nine&nbsp;to"),
    "order": PAGE.replace('action="/go" method="post"', 'method="post" action="/go"'),
    "default": PAGE.replace(' type="submit"', ""),
    "default2": PAGE.replace(' type="text"', ""),
    "method": PAGE.replace('"post"', '"POST"'),
    "style": PAGE.replace("color: red; margin: 0 10px", "margin:0px 10px 0 10px;COLOR:#F00;"),
    "style2": PAGE.replace("color: red", "color: rgb(255,0,0)"),
    "css": PAGE.replace("color: #333333; /* dark */", "color:#333").replace("0px 10px", "0 10px"),
    "style type": PAGE.replace("<style>", '<style type="text/css">'),
    "class order": PAGE.replace("main wide", "wide  main"),
    "end tags": re.sub("</(li|td|tr|th|p|thead|tbody|body|html)>", "", PAGE),
    "empty class": PAGE.replace("<ul>", '<ul class="">'),
    "xhtml": PAGE.replace(
        '<html lang="en">', '<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">'
    ).replace("<br>", "<br />"),
}

DAMAGED = {
    "body class": PAGE.replace("main wide", "main"),
    "text": PAGE.replace("Lions", "Tigers"),
    "h2": PAGE.replace("h1", "h2"),
    "no li": PAGE.replace("<li>Bears</li>", ""),
    "color": PAGE.replace("color: red", "color: blue"),
    "post": PAGE.replace('"post"', '"get"'),
    "not required": PAGE.replace(" required", ""),
    "css": PAGE.replace("#333333", "#cccccc"),
    "th": PAGE.replace("<td>Monday</td>", "<th>Monday</th>"),
}
DOCUMENT = (
    '<!DOCTYPE html><html lang="en"><head><meta charset="UTF-8"><title>{}</title></head>{}</html>'
)
OTHER = {  # the most that another page may earn
    "shop": (
        DOCUMENT.format("My shop", "<body><h1>Fruit</h1><p>We sell it.</p><ul><li>Pears</ul>"),
        0.25,
    ),
    "blank": (DOCUMENT.format("Document", "<body></body>"), 0.05),
    "lorem": ("<html><body><p>Lorem ipsum dolor sit amet</p></body></html>", 0.1),
    "tags alone": (re.sub(r">[^<>]+<", "><", re.sub(r'\s[\w-]+="[^"]*"', "", PAGE)), 0.3),
    "text alone": ("<p>" + re.sub(r"<[^>]+>", " ", PAGE) + "</p>", 0.3),
}


def alike(a, b):
    return markup.similarity(elements.read_html(a), elements.read_html(b))


def score(kind, content, answer):
    return rewards.score(f"<answer>{content}</answer>", {"problem_type": kind, "answer": answer})


@pytest.mark.parametrize("name", SAME)
def test_the_same_page_written_in_another_way(name):
    assert SAME[name] != PAGE
    assert alike(SAME[name], PAGE) == alike(PAGE, SAME[name]) == 1
    assert score("html-code", SAME[name], PAGE).overall == 1


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_seen_counts(name):
    assert 0.8 < alike(DAMAGED[name], PAGE) < 1
    assert alike(DAMAGED[name], PAGE) == pytest.approx(alike(PAGE, DAMAGED[name]))


@pytest.mark.parametrize("name", OTHER)
def test_another_page_is_not_paid(name):
    page, most = OTHER[name]
    assert alike(page, PAGE) < most


STYLES = [
    ("margin:0 10px", "margin: 0px 10px 0 10px;"),
    ("margin:5px", "margin:5px 5px 5px 5px"),
    ("padding:1px 2px 3px", "padding: 1px 2px 3px 2px"),
    ("color:red", "COLOR: #F00"),
    ("color:red", "color:rgb(255, 0, 0)"),
    ("color:rgba(0,0,0,.5)", "color: rgba(0, 0, 0, 0.50)"),
    ("border:1px solid #fff", "border: 1PX SOLID white"),
    ("background:#fff", "background-color:#ffffff"),
    ("font-weight:bold", "font-weight:700"),
    ("font-family:'Open Sans',serif", 'font-family: "Open Sans", serif'),
    ("background:url('a;b.png')", "background: url(a;b.png)"),
    ("opacity:.5", "opacity: 0.50"),
    ("width:50%;height:2em", "height: 2.0em; width: 50.0%"),
    ("color:red", "; color : red ;; "),
]
OTHER_STYLES = [
    ("margin:0 10px", "margin: 10px 0"),
    ("color:red", "color:blue"),
    ("color:rgba(0,0,0,.5)", "color:rgba(0,0,0,1)"),
    ("width:50%", "width:50px"),
    ("width:2em", "width:2rem"),
    ("font-weight:bold", "font-weight:normal"),
    ("background:url(a.png)", "background:url(b.png)"),
    ("color:red", "border-color:red"),
]


def page(style):
    return f"<p style='{style}'>a</p>" if "'" not in style else f'<p style="{style}">a</p>'


@pytest.mark.parametrize(("a", "b"), STYLES)
def test_styles_in_their_normal_forms(a, b):
    b = b.replace('"', "&quot;")
    assert alike(page(a), page(b)) == 1


@pytest.mark.parametrize(("a", "b"), OTHER_STYLES)
def test_styles_that_differ(a, b):
    assert alike(page(a), page(b)) < 1


@pytest.mark.parametrize(
    ("short", "whole"),
    [
        ("<ul><li>a<li>b</ul>", "<ul><li>a</li><li>b</li></ul>"),
        ("<ul><li><p>a<li><b>b</ul>", "<ul><li><p>a</p></li><li><b>b</b></li></ul>"),
        ("<ul><li>a<ul><li>b</ul><li>c</ul>", "<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>"),
        ("<dl><dt>a<dd>b<dt>c</dl>", "<dl><dt>a</dt><dd>b</dd><dt>c</dt></dl>"),
        (
            "<table><tr><td>a<td>b<tr><th>c</table>",
            "<table><tbody><tr><td>a</td><td>b</td></tr><tr><th>c</th></tr></tbody></table>",
        ),
        (
            "<table><thead><tr><th><p>a<tbody><tr><td>b<tfoot><tr><td>c</table>",
            "<table><thead><tr><th><p>a</p></th></tr></thead><tr><td>b</td></tr>"
            "<tfoot><tr><td>c</td></tr></tfoot></table>",
        ),
        (
            "<table><tr><td><table><tr><td>a</table><td>b</table>",
            "<table><tr><td><table><tr><td>a</td></tr></table></td><td>b</td></tr></table>",
        ),
        ("<p>a<p>b<div>c</div>", "<p>a</p><p>b</p><div>c</div>"),
        ("<p>a <b>b</b><ul><li>c</ul>", "<p>a <b>b</b></p><ul><li>c</li></ul>"),
        (
            "<select><optgroup label=x><option>a<option>b<optgroup label=y><option>c</select>",
            "<select><optgroup label='x'><option>a</option><option>b</option></optgroup>"
            "<optgroup label='y'><option>c</option></optgroup></select>",
        ),
        ("<table><col width=9><tr><td>a</table>",
         "<table><colgroup><col width='9'></colgroup><tbody><tr><td>a</td></tr></tbody></table>"),
    ],
)  # fmt: skip
def test_end_tags_may_be_left_out(short, whole):
    assert elements.read_html(short) == elements.read_html(whole)


@pytest.mark.parametrize(
    ("kind", "content", "form"),
    [
        ("svg-code", "<svg/>", 0),
        ("svg-code", "<svg></svg>", 0),
        ("svg-code", '<svg viewBox="0 0 9 9"></svg>', 0),
        ("svg-code", '<svg viewBox="0 0 9 9"><g id="a"/></svg>', 0),
        ("svg-code", "<svg><rect/><circle/></svg>", 0),
        ("svg-code", "<svg><title>A cat</title><desc>It sits</desc></svg>", 0),
        ("svg-code", "<svg>a cat</svg>", 0),
        ("svg-code", "<svg><!-- a cat --></svg>", 0),
        ("svg-code", '<svg><rect width="9" height="9"/></svg>', 1),
        ("svg-code", "<svg><text>a cat</text></svg>", 1),
        ("html-code", "<p></p>", 0),
        ("html-code", "<div><p> </p></div>", 0),
        ("html-code", "<html><head><title>Zoo</title></head><body></body></html>", 0),
        ("html-code", '<html><body class="a"></body></html>', 0),
        ("html-code", "<style>a{color:red}</style><p></p>", 0),
        ("html-code", "<p>&nbsp;</p>", 0),
        ("html-code", "<p>a</p>", 1),
        ("html-code", '<img src="a.png">', 1),
    ],
)
def test_an_empty_document_is_not_in_form(kind, content, form):
    drawing = "<svg>" + 9 * '<circle r="3"/><text>a b</text>' + "</svg>"
    truth = drawing if kind == "svg-code" else PAGE
    result = score(kind, content, truth)
    assert result.format == form
    assert form or result.accuracy < 0.2
    assert score(kind, content, content).overall == 1


@pytest.mark.parametrize(
    "part", ["(", "url(", "'", '"', ";", ":", "a:", "rgb(", "#", "0.", "a:(;", "/*", " ", "\\"]
)
def test_long_styles_take_time_in_proportion(part):
    quoted = part.replace('"', "&quot;")
    for text in (f'<p style="a:{quoted * 8000}">x</p>', f"<style>{part * 8000}</style><p>x</p>"):
        start = time.process_time()
        elements.read_html(text)
        assert time.process_time() - start < 0.5
