"""A hook of mkdocs: links that leave ``docs/`` become links into the repository, if their target is there."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from markdown.extensions.toc import slugify
from mkdocs.exceptions import PluginError

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^ *(```|~~~)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
LINK = re.compile(r"(?<=\]\()(\.\./[^)#\s]*)(?:#([^)\s]*))?(?=\))")


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, **_: object) -> str:
    """Return a page's text with its links rewritten.

    Parameters
    ----------
    markdown : str
        The page's text.
    page : mkdocs.structure.pages.Page
        The page.
    config : mkdocs.config.defaults.MkDocsConfig
        The site's configuration.
    **_ : object
        What else mkdocs passes; not used.

    Returns
    -------
    str
        The text, with links that the site can follow.

    Raises
    ------
    PluginError
        The repository has no such file or folder, or the file has no such heading.
    """
    source = Path(config.docs_dir, page.file.src_uri)

    def rewritten(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(source.parent / match[1]))
        if not target.exists():
            raise PluginError(f"docs/{page.file.src_uri} links to {match[1]}, which is not in the repository")
        if match[2] and match[2] not in _anchors(target):
            raise PluginError(f"docs/{page.file.src_uri} links to {match[0]}, but {match[1]} has no such heading")
        kind = "tree" if target.is_dir() else "blob"
        anchor = f"#{match[2]}" if match[2] else ""
        return f"{(config.repo_url or '').rstrip('/')}/{kind}/main/{target.relative_to(ROOT)}{anchor}"

    lines, fenced = [], False
    for line in markdown.split("\n"):
        if FENCE.match(line):
            fenced = not fenced
        lines.append(line if fenced else LINK.sub(rewritten, line))
    return "\n".join(lines)


def _anchors(target: Path) -> set[str]:
    """Return the anchors of a Markdown file's headings."""
    if target.suffix != ".md":
        return set()
    return {slugify(heading, "-") for heading in HEADING.findall(target.read_text(encoding="utf-8"))}
