"""How an extra of evr1 is installed: from where evr1 itself came, as no index need have it."""

import importlib.metadata
import json
import urllib.parse
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def install(extra: str, package: Path = PACKAGE) -> str:
    """Returns the command that installs an extra.

    >>> install("wandb").endswith("[wandb]'")
    True

    Args:
        extra: one of setup.py.
        package: where evr1 lies.
    """
    root = package.parent
    if (root / "setup.py").is_file():  # a checkout
        return f"pip install -e '{root}[{extra}]'"
    source = _source()
    if source.startswith("file://"):
        return f"pip install '{urllib.parse.unquote(source.removeprefix('file://'))}[{extra}]'"
    return f"pip install 'evr1[{extra}]{f' @ {source}' if source else ''}'"


def _source() -> str:
    """Returns the URL that evr1 was installed from; empty: an index, or nobody knows."""
    try:
        text = importlib.metadata.distribution("evr1").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return ""
    record = json.loads(text or "{}")
    url = str(record.get("url", ""))
    return f"{record['vcs_info']['vcs']}+{url}" if "vcs_info" in record else url
