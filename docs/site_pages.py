"""What the site needs beyond docs/: pages that lie elsewhere, and examples in docstrings as code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PAGES = {
    "benchmarks/README.md": "benchmarks.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
}
"""Where they stand in the repository → in the site."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    root = Path(config.config_file_path).parent
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(root / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points links to them at their places in the site."""
    for source, target in PAGES.items():
        markdown = markdown.replace(f"](../{source}", f"]({target}")
    if page.file.src_uri in PAGES.values():
        # and their own links to pages, which stand beside them there
        markdown = re.sub(r"\]\((?:\.\./)?docs/", "](", markdown)
    return markdown


# from `>>>` to the next empty line
_EXAMPLE = re.compile(r"^([ ]*)(>>> .*?)(?=\n[ ]*\n|\Z)", re.M | re.S)


class Examples(griffe.Extension):
    """Shows the examples in docstrings as code."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Puts a fence around each."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(r"\1```python\n\1\2\n\1```", obj.docstring.value)
