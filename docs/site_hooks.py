"""Pages of the site that stand outside of docs/, and links between them and those inside.

In the repository a link leads to a file, as in docs/pods.md to ../tpu/README.md; on the site the
same page may lie elsewhere. Links are rewritten, so that both hold; what leads nowhere is left as
it is, and the build refuses it.
"""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# File of the repository -> its place on the site.
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing/index.md",
    "tpu/README.md": "launchers.md",
    "benchmarks/README.md": "measured.md",
    **{
        f"benchmarks/figures/{path.name}": f"figures/{path.name}"
        for path in sorted((ROOT / "benchmarks" / "figures").glob("*.svg"))
    },
}
LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that stand outside of docs/."""
    for source, place in OUTSIDE.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Returns the text of a page with links to where files lie on the site."""
    return rewritten(markdown, page.file.src_uri)


def rewritten(markdown: str, place: str) -> str:
    """Returns the text of a page with its links rewritten.

    Args:
        markdown: as it stands in the repository.
        place: of the page on the site, such as contributing/index.md.
    """
    source = next((s for s, p in OUTSIDE.items() if p == place), f"docs/{place}")

    def link(match: re.Match[str]) -> str:
        before, target, anchor, after = match.groups()
        file = normpath(str(PurePosixPath(source).parent / target))
        there = OUTSIDE.get(file, file.removeprefix("docs/") if file.startswith("docs/") else None)
        if there is None:
            return match.group(0)
        return f"{before}{relpath(there, str(PurePosixPath(place).parent))}{anchor or ''}{after}"

    return LINK.sub(link, markdown)
