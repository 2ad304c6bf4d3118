"""Makes the pictures of the docs: `python tests/rigs/screenshots.py RUN`.

Needs a Chromium on the PATH. RUN is a training whose report.html is there: runs/one of
docs/first_hour.md.
"""

import argparse
from pathlib import Path

import browser
from repo import ROOT

OUT = ROOT / "docs" / "images"
WIDTH, HEIGHT = 1000, 640
SHOTS = {"report": "body", "rollouts": "#rollouts"}  # name -> the node that is put at the top


def make(page: Path, out: Path = OUT) -> list[Path]:
    """Writes the pictures of a run's page as PNG into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    made = []
    with browser.Browser() as one:
        for name, css in SHOTS.items():
            tab = one.open(page.resolve().as_uri(), WIDTH, HEIGHT)
            tab.eval(f"document.querySelector({css!r}).scrollIntoView()")
            tab.wait("[...document.images].every(i => i.complete || i.loading == 'lazy')")
            assert not tab.errors
            made.append(out / f"{name}.png")
            tab.screenshot(made[-1])
    return made


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Makes the pictures of the docs.")
    parser.add_argument("run", type=Path, help="workdir of a training")
    flags = parser.parse_args()
    if browser.PATH is None:
        parser.error(browser.WHY_NOT)
    for path in make(flags.run / "report.html"):
        print(path)


if __name__ == "__main__":
    main()
