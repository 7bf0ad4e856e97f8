"""Links from the pages to files outside docs/: on the site they lead to the repository, and dead ones fail."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: object) -> str:  # noqa: ANN401 - mkdocs' own objects
    """Return a page with its links to the repository made absolute; mkdocs calls this for each page.

    Parameters
    ----------
    markdown : str
        The page.
    page : mkdocs.structure.pages.Page
        Whose file says where links start.
    config : mkdocs.config.defaults.MkDocsConfig
        Has the repository's address.

    Raises
    ------
    ValueError
        A link leads to no file of the repository.
    """
    folder = Path(page.file.abs_src_path).parent

    def absolute(match: re.Match[str]) -> str:
        target = (folder / match[1]).resolve()
        if not target.exists() or not target.is_relative_to(ROOT):
            raise ValueError(f"{page.file.src_path}: the link {match[1]} leads nowhere")
        return f"]({config.repo_url.rstrip('/')}/blob/main/{target.relative_to(ROOT)}{match[2] or ''})"

    return LINK.sub(absolute, markdown)
