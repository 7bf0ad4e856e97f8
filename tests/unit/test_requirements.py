"""Each operator's list of packages is complete, so that its image is; and the lists agree."""

from __future__ import annotations

import re
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.helpers.modules import OURS, imported, modules_of

ROOT = Path(__file__).parents[2]
LISTS = ["load", "filter", "stitch"]
OWNERS = {
    name: {re.sub("[-_.]+", "-", owner).lower() for owner in owners}
    for name, owners in packages_distributions().items()
}
"""Which installed packages bring a module."""


def pins(name: str) -> set[str]:
    """Return a lock's lines, ``package==version ; marker``."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    return {line.removesuffix("\\").strip() for line in lines if re.match(r"\w", line)}


def packages(name: str) -> set[str]:
    return {re.split("[=[ ]", pin)[0] for pin in pins(name)}


def extras(name: str) -> set[str]:
    """Return the packages that a list of an extra names itself."""
    lines = (ROOT / "requirements" / f"{name}.in").read_text().splitlines()
    return {line.split()[0] for line in lines if re.match(r"\w", line)}


OPTIONAL = {
    ROOT / "operators" / "stitch" / "outputs" / "parquet.py": extras("parquet"),
    ROOT / "operators" / "stitch" / "objects" / "nuclei.py": {"geopandas", "shapely"},  # for who has them
}
"""What modules import that are used only where an extra of the package is installed, or the user's own packages are."""


@pytest.mark.parametrize("operator", LISTS)
def test_the_list_has_all_that_the_operator_imports(operator: str) -> None:
    for file in modules_of(operator):
        for name in {name.split(".")[0] for name in imported(file)} & OWNERS.keys():
            if name != OURS:
                listed = packages(operator) | OPTIONAL.get(file, set())
                assert OWNERS[name] & listed, f"{file.relative_to(ROOT)} imports {name}"


def test_filter_needs_no_slide_reader() -> None:
    slides = ROOT / "shared" / "slides"
    assert not [file for file in modules_of("filter") if slides in file.parents]


def test_one_version_of_each_package_whichever_list_names_it() -> None:
    for name in LISTS:
        assert pins(name) <= pins("run")
    assert set.union(*map(pins, LISTS)) == pins("run")
    dev = {pin.split(" ;")[0] for pin in pins("dev")}  # the markers of what others need too are wider there
    assert {pin.split(" ;")[0] for pin in pins("run")} <= dev


def test_locks_name_no_index() -> None:
    for lock in (ROOT / "requirements").glob("*.txt"):
        assert "://" not in lock.read_text(), lock
