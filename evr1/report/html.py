"""Static pages that ask the network for nothing: a template with style, script and data inside.

What a model wrote is untrusted: it stands in a page as escaped JSON, scripts write it as text only,
and a content security policy allows no other script and no request.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

_DATA = '<script type="application/json" id="data">'
_ASSETS = Path(__file__).parents[1] / "assets"


def embed_json(value: Any) -> markupsafe.Markup:
    """JSON that may stand inside a script element: nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return markupsafe.Markup(text)


def render(
    template: str,
    styles: Sequence[str],
    scripts: Sequence[str],
    *,
    is_served: bool = False,
    **values: Any,
) -> str:
    """Returns a page.

    Args:
        template: a file of assets/, which extends report/base.html.jinja.
        styles: files of assets/, put together in this order.
        scripts: the same for its one script.
        is_served: its script may ask the server that it comes from.
        **values: of the template.
    """
    style, script = ("".join(map(_asset, names)) for names in (styles, scripts))
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(
        style=markupsafe.Markup(style),
        script=markupsafe.Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        is_served=is_served,
        **values,
    )


def data_of(page: str) -> Any:
    """Returns the JSON that `embed_json` put into a page.

    Raises:
        ValueError: it is no such page.
    """
    return json.loads(page.partition(_DATA)[2].partition("</script>")[0])


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The content security policy's name for an inline style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
