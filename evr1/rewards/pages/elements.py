"""SVG and HTML as lists of elements in document order, with what spelling may vary made equal."""

import html.parser
import re
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple
from xml.parsers import expat

from evr1.rewards.pages.attributes import Value, is_unseen, plain_css, read_attributes

MAX_CHARS = 50_000
MAX_ELEMENTS = 3_000
MAX_DEPTH = 100
TEXT = "#text"

_VOID = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param")
    + ("source", "track", "wbr")
)
# Opening a tag closes the outermost open one of the first set that the second set does not hold,
# and what is open in it, as HTML lets end tags be left out.
_BLOCKS = ("address", "article", "aside", "blockquote", "center", "details", "div", "dl", "form")
_BLOCKS += ("fieldset", "figcaption", "figure", "footer", "h1", "h2", "h3", "h4", "h5", "h6")
_BLOCKS += ("header", "hr", "main", "menu", "nav", "ol", "p", "pre", "section", "table", "ul")
_CLOSES: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    tag: (frozenset(closed.split()), frozenset(bounds.split()))
    for tags, closed, bounds in (
        (_BLOCKS, "p", "table td th caption button object template"),
        (("li",), "li", "ul ol menu"),
        (("dt", "dd"), "dt dd", "dl"),
        (("option",), "option", "select datalist optgroup"),
        (("optgroup",), "option optgroup", "select"),
        (("td", "th"), "td th", "tr table"),
        (("tr",), "tr", "thead tbody tfoot table"),
        (("thead", "tbody", "tfoot"), "thead tbody tfoot", "table"),
    )
    for tag in tags
}
_IMPLIED = frozenset(("html", "head", "body", "tbody", "colgroup"))  # a browser adds them
_OPEN_TAG = re.compile("<[a-zA-Z/!?]")


class Element(NamedTuple):
    """An element, or a stretch of text, whose tag is TEXT and whose only attribute is its text."""

    path: str  # the tags from the root to it
    tag: str
    attributes: Mapping[str, Value]
    is_root: bool = False


def read_svg(text: str) -> list[Element] | None:
    """Returns the elements of an SVG document; None if it is malformed, too large, or declares."""
    if len(text) > MAX_CHARS:
        return None
    builder = _Builder(is_svg=True)
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse_declarations
    parser.StartElementHandler = lambda name, attributes: builder.start(
        _local(name), {_local(k): v for k, v in attributes.items() if not k.startswith("xmlns")}
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
    """Returns the elements of HTML; None where there are none, or too many."""
    if len(text) > MAX_CHARS:
        return None
    builder = _Builder(is_svg=False)
    try:
        reader = _HtmlReader(builder)
        reader.feed(text)
        # A tag that the page does not end is none, as in a browser; the parser would look from each
        # of its "<" to the end again.
        if reader.cdata_elem or not _OPEN_TAG.match(reader.rawdata):
            reader.close()
        elements = builder.elements()
    except (_Refused, AssertionError):  # the parser's word for declarations that it cannot read
        return None
    return elements if any(e.tag != TEXT for e in elements) else None


class _Refused(Exception):
    """Raised for a document too deep or too long, or one that declares entities."""


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
        closes, bounds = _CLOSES.get(tag, (frozenset(), frozenset()))
        closed = ""
        for open_tag in reversed(builder.open if closes else []):
            if open_tag in bounds:
                break
            closed = open_tag if open_tag in closes else closed
        builder.end(closed)
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
        self._elements: list[Element] = []
        self._text: list[str] = []

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._flush()
        is_svg = self._is_svg or "svg" in self.open or tag == "svg"
        read = dict(read_attributes(tag, attributes, is_svg))
        path = parent = self._paths[-1]
        if is_svg or not is_unseen(tag, attributes):
            # What a browser would add by itself counts only if it says something, and alone.
            is_implied = not self._is_svg and tag in _IMPLIED
            path = f"{parent}/{tag}"
            if read or not is_implied:
                self._add(Element(path, tag, read, is_root=not self._elements and self._is_svg))
            path = parent if is_implied else path
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
        return self._elements

    def _flush(self) -> None:
        text = unicodedata.normalize("NFC", " ".join("".join(self._text).split()))
        self._text.clear()
        if self.open and self.open[-1] == "style":
            text = plain_css(text)
        if text:
            self._add(Element(f"{self._paths[-1]}/{TEXT}", TEXT, {TEXT: (text,)}))

    def _add(self, element: Element) -> None:
        self._elements.append(element)
        if len(self._elements) > MAX_ELEMENTS:
            raise _Refused
