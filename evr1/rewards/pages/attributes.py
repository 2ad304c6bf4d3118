"""Attributes and styles of SVG and HTML, with what spelling may vary made equal."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import ImageColor

Value = tuple[Any, ...]  # numbers, words and colours in turn

_COLOURED = ("fill", "stroke", "color", "background", "border-color", "stop-color", "flood-color")
_COLOURED += ("background-color", "bgcolor", "lighting-color")
_TOKEN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?|[a-zA-Z#%_-]+|[^\s,]")
_QUANTITY = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?\s?[a-zA-Z%]{0,4}")
_LISTS = frozenset(
    ("d", "points", "viewBox", "viewbox", "transform", "gradientTransform", "gradienttransform")
    + ("stroke-dasharray",)
)
_UNSEEN = frozenset(("lang", "xml:lang", "version", "prefix"))  # in HTML
_UNSEEN_ROOT = frozenset(("version", "baseProfile"))  # of a drawing
_FLAGS = frozenset(
    ("allowfullscreen", "async", "autofocus", "autoplay", "checked", "controls", "default", "defer")
    + ("disabled", "formnovalidate", "hidden", "inert", "ismap", "loop", "multiple", "muted")
    + ("nomodule", "novalidate", "open", "playsinline", "readonly", "required", "reversed")
    + ("selected",)
)
_CASELESS = frozenset(
    ("type", "method", "rel", "align", "valign", "dir", "scope", "shape", "autocomplete", "enctype")
    + ("loading", "decoding", "preload", "wrap", "kind")
)
_DEFAULTS = {  # tag, attribute → the value that it has unsaid
    ("input", "type"): "text",
    ("button", "type"): "submit",
    ("script", "type"): "text/javascript",
    ("script", "language"): "javascript",
    ("style", "type"): "text/css",
    ("style", "media"): "all",
    ("link", "type"): "text/css",
    ("link", "media"): "all",
    ("form", "method"): "get",
    ("a", "target"): "_self",
    ("ol", "type"): "1",
    ("ol", "start"): "1",
    ("img", "loading"): "eager",
    ("html", "dir"): "ltr",
    ("body", "dir"): "ltr",
    **{(cell, name): "1" for cell in ("td", "th") for name in ("colspan", "rowspan")},
}
_UNSEEN_META = frozenset(("viewport", "generator", "author", "robots", "theme-color"))

_STYLE_TOKEN = re.compile(
    r"(?P<text>\"[^\"]*\"|'[^']*')|(?P<url>url\([^)]{0,4000}\))|(?P<colour>#[\da-f]{3,8}\b|(?:rgb|hsl)a?\([^()]*\))"
    r"|(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,3})?)(?P<unit>[a-z]{1,4}|%)?"
    r"|(?P<word>[a-z_-][\w-]*)|(?P<sign>[^\s,])"
)
_FOUR_SIDES = frozenset(("margin", "padding", "border-width", "border-radius", "inset"))
_WEIGHTS = {"normal": 400.0, "bold": 700.0}
_CSS_FORMS = (  # in a style sheet, in order
    (re.compile(r"/\*.*?\*/|/\*.*\Z", re.DOTALL), " "),
    (re.compile(r"\s{0,99}([{}:;,>])\s{0,99}"), r"\1"),
    (re.compile(r";{1,99}\}"), "}"),
    (re.compile(r"(?<![\w.])\.(?=\d)"), "0."),
    (re.compile(r"(?<![\w.])0(?:\.0{1,9})?(?:px|em|rem|pt|vh|vw|%)(?![\w%])"), "0"),
    (
        re.compile(r"(?<=[:\s(,])#([\da-fA-F]{3}|[\da-fA-F]{6})(?![\w-])"),
        lambda m: "#" + (m[1] if len(m[1]) == 6 else "".join(2 * c for c in m[1])).lower(),
    ),
    (re.compile("'"), '"'),
)


def read_attributes(
    tag: str, attributes: Mapping[str, str], is_svg: bool
) -> Iterator[tuple[str, Value]]:
    """Yields attributes by name; a style stands for its properties, which are attributes in SVG.

    In HTML, what nobody sees (the language, what holds unsaid, empty classes) is left out.

    Args:
        tag: in lower case.
        attributes: as they are written.
        is_svg: whether the element is part of a drawing.
    """
    for name, text in attributes.items():
        if name == "style" or name.startswith("xmlns"):
            continue
        if is_svg and tag == "svg" and name in _UNSEEN_ROOT:
            continue
        if is_svg:
            yield name, read_value(name, text)
        elif name not in _UNSEEN and not _is_default(tag, name, text):
            yield name, _read_html_value(tag, name, text)
    for name, text in _declarations(attributes.get("style", "")):
        if is_svg:
            yield name, read_value(name, text)
        else:
            value = read_style(name, text)
            is_colour = name == "background" and len(value) == 1 and isinstance(value[0], tuple)
            yield f"style:{'background-color' if is_colour else name}", value


def is_unseen(tag: str, attributes: Mapping[str, str]) -> bool:
    """Returns whether an HTML element only tells a browser how to read the page."""
    if tag != "meta":
        return False
    name = attributes.get("name", "").strip().lower()
    return "charset" in attributes or "http-equiv" in attributes or name in _UNSEEN_META


def _is_default(tag: str, name: str, text: str) -> bool:
    text = text.strip().lower()
    return _DEFAULTS.get((tag, name)) == text or (name in ("class", "id", "title") and not text)


def _read_html_value(tag: str, name: str, text: str) -> Value:
    if name in _FLAGS:
        return ("",)
    is_caseless = name in _CASELESS and tag not in ("ol", "ul", "li")  # type="A" is not "a" there
    return read_value(name, text.lower() if is_caseless else text)


def _declarations(style: str) -> Iterator[tuple[str, str]]:
    """Yields the properties of a style; a semicolon within brackets or quotes ends none."""
    start, closing = 0, ""
    ends = [*re.finditer(r"[;()'\"]", style), None]
    for match in ends:
        sign = match[0] if match else ";"
        if closing and match:
            closing = "" if sign == closing else closing
        elif sign == ";":
            name, colon, text = style[start : match.start() if match else None].partition(":")
            start = match.end() if match else len(style)
            if colon and name.strip() and text.strip():
                yield name.strip().lower(), text.strip()
        else:
            closing = ")" if sign == "(" else sign if sign != ")" else ""


def read_value(name: str, text: str) -> Value:
    """Returns an attribute's value: a colour, a set of classes, numbers and words, or a text.

    >>> read_value("fill", "White") == read_value("fill", "#FFF")
    True
    >>> read_value("points", "0,0 1.0,.5")
    (0.0, 0.0, 1.0, 0.5)
    """
    text = " ".join(text.split())
    if name in _COLOURED:
        return (_colour(text) or text.lower(),)
    if name == "class":
        return tuple(sorted(set(text.split())))
    if text.lower() == name:  # checked="checked" is checked
        return ("",)
    if name in _LISTS or _QUANTITY.fullmatch(text):
        return tuple(n for n in map(_number, _TOKEN.findall(text)) if n != "px")
    return (text,)


def read_style(name: str, text: str) -> Value:
    """Returns a style's value: numbers with units other than pixels, words and colours in turn.

    >>> read_style("border", "1PX Solid #FFF") == read_style("border", "1px solid white")
    True
    >>> read_style("margin", "0 auto")
    (0.0, 'auto', 0.0, 'auto')
    """
    parts: list[Any] = []
    for match in _STYLE_TOKEN.finditer(text.lower()):
        kind, token = match.lastgroup, match[0]
        if kind == "colour":
            parts.append(_colour(token) or token)
        elif kind in ("number", "unit"):
            value = float(match["number"])
            unit = match["unit"] or ""
            is_bare = not value or unit in ("", "px")
            parts.append(_number(match["number"]) if is_bare else f"{value:g}{unit}")
        elif kind == "url":
            parts.append("url(" + token[4:-1].strip(" \"'") + ")")
        elif kind == "text":
            parts.append(token[1:-1])
        else:
            parts.append((_colour(token) if token in ImageColor.colormap else None) or token)
    if name == "font-weight":
        parts = [_WEIGHTS.get(p, p) if isinstance(p, str) else p for p in parts]
    if name in _FOUR_SIDES and 0 < len(parts) < 4:
        top, right, bottom = (
            parts[0],
            parts[-1 if len(parts) == 1 else 1],
            parts[2 if len(parts) == 3 else 0],
        )
        parts = [top, right, bottom, right]
    return tuple(parts)


def plain_css(text: str) -> str:
    """Returns a style sheet without comments and with its spelling made equal."""
    for pattern, plain in _CSS_FORMS:
        text = pattern.sub(plain, text)
    return text.strip()


def _colour(text: str) -> tuple[int, ...] | None:
    """Returns red, green, blue and opacity, up to 255; None for what is no colour."""
    text = re.sub(r"\s+", "", text)
    faded = re.fullmatch(r"rgba?\((\d+),(\d+),(\d+),(\d*\.?\d+)(%?)\)", text)
    if faded:
        opacity = float(faded[4]) / 100 if faded[5] else float(faded[4])
        return (*(min(255, int(faded[i][:4])) for i in (1, 2, 3)), round(255 * min(1.0, opacity)))
    try:
        red, green, blue, *alpha = ImageColor.getrgb(text)
    except ValueError:
        return None
    return red, green, blue, alpha[0] if alpha else 255


def _number(token: str) -> float | str:
    try:
        value = float(token)
    except ValueError:
        return token
    return value if abs(value) < 1e9 else token
