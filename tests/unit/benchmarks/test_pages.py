"""No figure in the docs is older than its neighbour: the pages hold what one run of the benchmarks wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import results


@pytest.mark.parametrize("page", results.PAGES, ids=lambda path: path.name)
def test_the_page_holds_the_figures_of_the_last_run(page: Path) -> None:
    text = page.read_text()
    assert text == results.with_figures(text, results.markdown(results.read(), all_rows=results.PAGES[page]))
