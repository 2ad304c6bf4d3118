"""SVG and HTML as a list of elements in document order, with what spelling may vary made equal."""

import html.parser
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from xml.parsers import expat

from PIL import ImageColor

MAX_CHARS = 50_000
MAX_ELEMENTS = 3_000
MAX_DEPTH = 100
TEXT = "#text"

Value = tuple[Any, ...]  # numbers, words and colours in turn

_VOID = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param")
    + ("source", "track", "wbr")
)
# Opening one of the right closes an open one of the left, as HTML lets end tags be left out.
_CLOSED_BY = {
    **{"li": {"li"}, "dt": {"dt", "dd"}, "dd": {"dt", "dd"}, "option": {"option", "optgroup"}},
    **{"tr": {"tr", "tbody", "tfoot"}, "td": {"td", "th", "tr", "tbody", "tfoot"}},
    **{"th": {"td", "th", "tr", "tbody", "tfoot"}, "thead": {"tbody", "tfoot"}},
    "tbody": {"tbody", "tfoot"},
    "p": {"address", "article", "aside", "blockquote", "details", "div", "dl", "fieldset", "footer"}
    | {"form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "main", "nav", "ol", "p", "pre"}
    | {"section", "table", "ul"},
}
_CLOSES_WITHIN = {"li": {"ul", "ol"}, "dt": {"dl"}, "dd": {"dl"}, "option": {"select", "datalist"}}
_IMPLIED = frozenset(("html", "head", "body", "tbody"))  # the parser of a browser adds them
_COLOURED = ("fill", "stroke", "color", "background", "border-color", "stop-color", "flood-color")
_COLOURED += ("background-color", "bgcolor", "lighting-color")
_TOKEN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?|[a-zA-Z#%_-]+|[^\s,]")
_QUANTITY = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?\s?[a-zA-Z%]{0,4}")
_LISTS = frozenset(("d", "points", "viewBox", "transform", "gradientTransform", "stroke-dasharray"))
_CSS_SPACE = re.compile(r"\s*([{}:;,>])\s*")


class Element(NamedTuple):
    """An element, or a stretch of text, whose tag is TEXT and whose only attribute is its text."""

    path: str  # the tags from the root to it
    tag: str
    attributes: Mapping[str, Value]
    is_root: bool = False


def read_svg(text: str) -> list[Element] | None:
    """The elements of an SVG document; None where it is malformed or too large, or declares."""
    if len(text) > MAX_CHARS:
        return None
    builder = _Builder(is_svg=True)
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse_declarations
    parser.StartElementHandler = lambda name, found: builder.start(
        _local(name), {_local(k): v for k, v in found.items() if not k.startswith("xmlns")}
    )
    parser.EndElementHandler = lambda name: builder.end(_local(name))
    parser.CharacterDataHandler = builder.text
    try:
        parser.Parse(text.strip().encode("utf-8", "surrogatepass"), True)
        elements = builder.elements()
    except (expat.ExpatError, _Refused):
        return None
    return elements if elements and elements[0].tag == "svg" else None


def read_html(text: str) -> list[Element] | None:
    """The elements of an HTML document or fragment; None where there are none, or too many."""
    if len(text) > MAX_CHARS or text.count("<!") > 500:
        return None
    builder = _Builder(is_svg=False)
    try:
        reader = _HtmlReader(builder)
        reader.feed(text)
        reader.close()
        elements = builder.elements()
    except (_Refused, AssertionError):  # the parser's word for declarations that it cannot read
        return None
    return elements if any(e.tag != TEXT for e in elements) else None


class _Refused(Exception):
    """Too deep, too many, or declarations of entities."""


def _refuse_declarations(name: str, system: object, public: object, has_internal: int) -> None:
    if has_internal:
        raise _Refused


def _local(name: str) -> str:
    return name.rpartition(":")[2]


class _HtmlReader(html.parser.HTMLParser):
    def __init__(self, builder: "_Builder") -> None:
        super().__init__(convert_charrefs=True)
        self._builder = builder

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        builder = self._builder
        while builder.open and tag in _CLOSED_BY.get(builder.open[-1], ()):
            builder.end(builder.open[-1])
        # An item may hold unclosed inline elements; its own list bounds the search.
        if tag in _CLOSES_WITHIN and tag in builder.open:
            at = len(builder.open) - 1 - builder.open[::-1].index(tag)
            if not _CLOSES_WITHIN[tag] & set(builder.open[at:]):
                builder.end(tag)
        builder.start(tag, {k: v or "" for k, v in attrs[::-1]})
        if tag in _VOID:
            builder.end(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID and "svg" in self._builder.open:  # "/>" closes foreign elements only
            self._builder.end(tag)

    def handle_endtag(self, tag: str) -> None:
        self._builder.end(tag)

    def handle_data(self, data: str) -> None:
        self._builder.text(data)


class _Builder:
    """Collects elements as a parser meets them."""

    def __init__(self, is_svg: bool) -> None:
        self.open: list[str] = []
        self._is_svg = is_svg
        self._paths: list[str] = [""]
        self._found: list[Element] = []
        self._text: list[str] = []

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._flush()
        read = dict(_attributes(attributes, self._is_svg or "svg" in self.open))
        # What a browser would add by itself counts only if it says something.
        is_implied = not self._is_svg and tag in _IMPLIED and not read
        path = self._paths[-1] if is_implied else f"{self._paths[-1]}/{tag}"
        if not is_implied:
            self._add(Element(path, tag, read, is_root=not self._found and self._is_svg))
        self.open.append(tag)
        self._paths.append(path)
        if len(self.open) > MAX_DEPTH:
            raise _Refused

    def end(self, tag: str) -> None:
        """Closes the last open element of that tag, and what is open in it."""
        if tag not in self.open:
            return
        self._flush()
        while self.open.pop() != tag:
            self._paths.pop()
        self._paths.pop()

    def text(self, data: str) -> None:
        self._text.append(data)

    def elements(self) -> list[Element]:
        self._flush()
        return self._found

    def _flush(self) -> None:
        text = unicodedata.normalize("NFC", " ".join("".join(self._text).split()))
        self._text.clear()
        if self.open and self.open[-1] == "style":
            text = _CSS_SPACE.sub(r"\1", text).replace(";}", "}")
        if text:
            self._add(Element(f"{self._paths[-1]}/{TEXT}", TEXT, {TEXT: (text,)}))

    def _add(self, element: Element) -> None:
        self._found.append(element)
        if len(self._found) > MAX_ELEMENTS:
            raise _Refused


def _attributes(attributes: Mapping[str, str], is_svg: bool) -> Iterable[tuple[str, Value]]:
    """Attributes by name; a style stands for its properties, which in SVG are attributes too."""
    for name, text in attributes.items():
        if name != "style":
            yield name, read_value(name, text)
    for declaration in attributes.get("style", "").split(";"):
        name, colon, text = declaration.partition(":")
        if colon and name.strip():
            name = name.strip().lower()
            yield name if is_svg else f"style:{name}", read_value(name, text)


def read_value(name: str, text: str) -> Value:
    """An attribute's value: a colour, a set of classes, numbers and words, or a text.

    >>> read_value("fill", "White") == read_value("fill", "#FFF")
    True
    >>> read_value("points", "0,0 1.0,.5")
    (0.0, 0.0, 1.0, 0.5)
    """
    text = " ".join(text.split())
    if name in _COLOURED:
        try:
            red, green, blue, *alpha = ImageColor.getrgb(text)
        except ValueError:
            return (text.lower(),)
        return ((red, green, blue, alpha[0] if alpha else 255),)
    if name == "class":
        return tuple(sorted(set(text.split())))
    if text.lower() == name:  # checked="checked" is checked
        return ("",)
    if name in _LISTS or name.startswith("style:") or _QUANTITY.fullmatch(text):
        return tuple(n for n in map(_number, _TOKEN.findall(text)) if n != "px")
    return (text,)


def _number(token: str) -> float | str:
    try:
        value = float(token)
    except ValueError:
        return token
    return value if abs(value) < 1e9 else token
