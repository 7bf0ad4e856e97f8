"""Which program runs here: version, libraries, and the commit of an image, an installation or a checkout."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from nuclei_segmentation.shared.runtime import version

ROOT = Path(__file__).parents[2]
GIT = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "init.defaultBranch=main"]


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run([*GIT, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "first")
    return tmp_path


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    here = version.program()
    assert (here.name, here.version) == (project["name"], project["version"])
    assert {"numpy", "onnxruntime", "tifffile"} <= here.libraries.keys()
    assert str(here).startswith(f"{here.name} {here.version}")
    assert f"numpy {here.libraries['numpy']}" in here.environment


def test_an_image_knows_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUCLEI_COMMIT", "0123456789abcdef")
    version.program.cache_clear()
    try:
        assert "(commit 0123456789ab)" in str(version.program())
    finally:
        version.program.cache_clear()


def test_the_commit_of_a_checkout_is_read_without_git(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert version._checked_out(checkout) == commit
    git(checkout, "pack-refs", "--all")
    assert version._checked_out(checkout) == commit
    git(checkout, "checkout", "-q", "--detach")
    assert version._checked_out(checkout) == commit


def test_the_commit_of_a_worktree_is_its_own(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other") / "tree"
    git(checkout, "worktree", "add", "-q", "-b", "side", str(other))
    git(other, "commit", "-q", "--allow-empty", "-m", "second")
    assert version._checked_out(other) == git(other, "rev-parse", "HEAD") != git(checkout, "rev-parse", "HEAD")


@pytest.mark.parametrize("content", [None, "ref: refs/heads/none\n", "ref:\n"])
def test_no_commit_is_no_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / ".git").mkdir()
        (tmp_path / ".git" / "HEAD").write_text(content)
    assert version._checked_out(tmp_path) == ""


def test_every_image_tag_is_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    tags = {
        (path.name, tag)
        for path in (ROOT / "pipelines").glob("*.yaml")
        for image, tag in re.findall(r"image: (\S+)\s+tag: (\S+)", path.read_text())
        if image.startswith("nuclei/")
    }
    assert len(tags) >= 5
    assert {tag for _, tag in tags} == {project}
