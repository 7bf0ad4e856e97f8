"""What is installed: one name, with the models, whatever else lies in the same environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
IGNORED = shutil.ignore_patterns(".*", "build", "dist", "tests", "docs", "training", "benchmarks", "*.egg-info")


def test_every_folder_with_code_is_listed_as_a_package() -> None:
    folders = {folder: name for name, folder in SETUPTOOLS["package-dir"].items()}
    found = set()
    for folder, name in folders.items():
        for path in (ROOT / folder).rglob("__init__.py"):
            inner = path.parent.relative_to(ROOT / folder).parts
            found.add(".".join((name, *inner)))
    assert set(SETUPTOOLS["packages"]) == found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources, as `pip install .` does."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=IGNORED)
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps",
         "--no-build-isolation", "--wheel-dir", folder, folder / "source"],
        check=True, capture_output=True, timeout=240,
    )  # fmt: skip
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_one_name_and_the_models(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"nuclei_segmentation"}
    for model in ("segmentation_unet_nuclei", "segmentation_unet_nuclei_int8"):
        assert f"nuclei_segmentation/models/{model}/1/model.onnx" in names
        assert f"nuclei_segmentation/models/{model}/config.pbtxt" in names
    assert "nuclei_segmentation/py.typed" in names
    assert "nuclei_segmentation/shared/store/manifest.schema.json" in names
    assert "nuclei_segmentation/pipelines/nuclei-segmentation.yaml" in names


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel and another package named ``shared`` into an environment; the libraries are this one's."""
    folder = tmp_path_factory.mktemp("environment")
    other = folder / "other"
    (other / "shared").mkdir(parents=True)
    (other / "shared" / "__init__.py").write_text("WHOSE = 'another package'\n")
    (other / "pyproject.toml").write_text(
        '[project]\nname = "shared"\nversion = "1"\n[tool.setuptools]\npackages = ["shared"]\n'
    )
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    for package in (wheel, other):
        subprocess.run(
            [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, "install", "--quiet",
             "--no-deps", "--no-index", "--no-build-isolation", package],
            check=True, capture_output=True, timeout=240, env={"PYTHONPATH": str(libraries()), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
    (site,) = (folder / "venv" / "lib").glob("python3.*/site-packages")
    (site / "libraries.pth").write_text(f"{libraries()}\n")
    return folder / "venv"


def libraries() -> Path:
    """Return the folder of this environment's packages."""
    import numpy

    return Path(numpy.__file__).parents[1]


def run(environment: Path, folder: Path, *line: str) -> str:
    done = subprocess.run(
        [environment / "bin" / line[0], *line[1:]], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installed_program_works_beside_a_package_named_shared(
    environment: Path, sample_slide: Path, tmp_path: Path
) -> None:
    code = "import shared, nuclei_segmentation.shared as ours; print(shared.WHOSE, ours.__name__, ours.__file__)"
    assert run(environment, tmp_path, "python", "-c", code).startswith(
        f"another package nuclei_segmentation.shared {environment}"
    )
    assert "overlay:" in run(environment, tmp_path, "nuclei", "config")
    version = run(environment, tmp_path, "nuclei", "--version")
    assert f"{PROJECT['project']['name']} {PROJECT['project']['version']}" in version
    assert "segmentation_unet_nuclei (int8, SHA-256" in version
    assert "usage: nuclei-pipelines" in run(environment, tmp_path, "nuclei-pipelines", "--help")
    out = run(
        environment, tmp_path, "nuclei", "segmentation", "--input-path", str(sample_slide), "--output-path", "out"
    )
    assert "2,415" in out
    assert (tmp_path / "out" / "image.tif").is_file()
