"""Static pages as a browser reads them, and what each of them must keep to."""

import base64
import hashlib
import html.parser
import json
import re

NASTY = "</script><script>alert('x')</script><!-- <img src=x onerror=alert(2)> \" & \u2028 {{ 7 }}"


class Page(html.parser.HTMLParser):
    """What a browser would make of the file: its tags, scripts, and visible text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.scripts, self.styles, self.text = [], {}, [], []
        self._inside = None
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in {"script", "style"}:
            self._inside = (tag, dict(attrs).get("id", tag))

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside is None:
            self.text.append(data)
        elif self._inside[0] == "script":
            self.scripts[self._inside[1]] = self.scripts.get(self._inside[1], "") + data
        else:
            self.styles.append(data)

    @property
    def data(self):
        return json.loads(self.scripts["data"])

    @property
    def visible(self):
        return re.sub(r"\s+", " ", " ".join(self.text))

    @property
    def policy(self):
        """The content security policy, by directive."""
        for tag, attributes in self.tags:
            if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy":
                return dict(each.split(" ", 1) for each in attributes["content"].split("; "))
        raise AssertionError("no policy")


def check_nothing_from_outside(page):
    """No tag, attribute or call that would load, send or run what is not in the page's script."""
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 2
    assert not {"img", "link", "iframe", "object", "embed", "base"} & set(tags)
    for _, attributes in page.tags:
        assert not {"src", "srcset", "action", "style"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("href", "#").startswith("#")
    script = page.scripts["script"]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)
    assert not re.search(
        r"fetch\(|XMLHttpRequest|import\(|https?://(?!www\.w3\.org/2000/svg)", script
    )


def check_policy(page):
    """The policy allows the page's own script and style, pictures inside it, and nothing else."""
    assert page.policy["default-src"] == "'none'"
    assert page.policy["img-src"] == "data:"
    assert page.policy["script-src"] == f"'{_sha256(page.scripts['script'])}'"
    assert page.policy["style-src"] == f"'{_sha256(page.styles[0])}'"


def _sha256(text):
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
