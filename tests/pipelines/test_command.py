"""The command line: what it prints and how it ends."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from nuclei_segmentation.pipelines.language.findings import Code

ROOT = Path(__file__).parents[2]
GOOD = ROOT / "pipelines" / "nuclei-segmentation.yaml"
BAD = "api-version: 0.4.0\nname: x\noperators:\n- name: o\n  container: {image: a, hostVolumePath: x}\n"


CONSOLE_COMMAND = Path(sys.executable).with_name("nuclei-pipelines")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    (tmp_path / "bad.yaml").write_text(BAD)
    return tmp_path / "bad.yaml"


def test_check_of_a_good_file() -> None:
    done = run("check", GOOD)
    assert (done.returncode, done.stdout, done.stderr) == (0, "checked 1 file: 0 errors, 0 warnings\n", "")


def test_the_console_command_works_in_any_folder(tmp_path: Path) -> None:
    done = subprocess.run([CONSOLE_COMMAND, "check", GOOD], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "checked 1 file: 0 errors, 0 warnings\n", "")


def test_check_prints_errors_and_ends_with_1(bad: Path) -> None:
    done = run("check", GOOD, bad)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"{bad}:5:25: error: operators[0].container.hostVolumePath: a container has no 'hostVolumePath'; "
        "it may have image, tag, command",
        "checked 2 files: 1 error, 0 warnings",
    ]


def test_lenient_makes_unknown_names_warnings(bad: Path) -> None:
    done = run("check", "--lenient", bad)
    assert done.returncode == 0
    assert done.stdout.endswith("checked 1 file: 0 errors, 1 warning\n")


@pytest.mark.parametrize("line", ["", "check", "chek x", "check --strict x", "check --js x"])
def test_a_wrong_command_line(line: str) -> None:
    done = run(*line.split())
    assert done.returncode == 2
    assert "usage:" in done.stderr


@pytest.mark.parametrize(
    ("command", "program"),
    [
        ([sys.executable, "-m", "pipelines"], "python -m pipelines"),
        ([sys.executable, "-m", "nuclei_segmentation.pipelines"], "python -m nuclei_segmentation.pipelines"),
        ([str(CONSOLE_COMMAND)], "nuclei-pipelines"),
    ],
)
def test_the_usage_names_the_program_as_it_was_called(command: list[str], program: str) -> None:
    done = subprocess.run([*command, "run", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {program} run ")


def test_a_file_that_cannot_be_read(bad: Path, tmp_path: Path) -> None:
    done = run("check", tmp_path / "nowhere.yaml", bad)
    assert done.returncode == 2
    assert "nowhere.yaml:1:1: error: document: the file cannot be read: No such file or directory" in done.stdout
    assert "hostVolumePath" in done.stdout, "the others are checked all the same"
    assert "Traceback" not in done.stderr


def test_json_is_an_object_a_line(bad: Path) -> None:
    done = run("check", "--json", GOOD, bad)
    assert done.returncode == 1
    good, wrong = (json.loads(line) for line in done.stdout.splitlines())
    assert good == {
        "file": str(GOOD),
        "valid": True,
        "errors": 0,
        "warnings": 0,
        "findings": [],
        "pipeline": {
            "name": "nuclei-segmentation",
            "api-version": "0.4.0",
            "orchestrator": "Clara",
            "parameters": {
                "TILE_SIZE": "256", "OVERLAP": "0", "MODEL_NAME": "segmentation_unet_nuclei", "WORKERS": "2",
            },
            "operators": [
                {"name": "load", "image": "nuclei/load:0.1.0", "upstream": []},
                {"name": "filter", "image": "nuclei/filter:0.1.0", "upstream": ["load"]},
                {"name": "stitch", "image": "nuclei/stitch:0.1.0", "upstream": ["load", "filter"]},
            ],
        },
    }  # fmt: skip
    assert wrong == {
        "file": str(bad),
        "valid": False,
        "errors": 1,
        "warnings": 0,
        "findings": [
            {
                "file": str(bad),
                "line": 5,
                "column": 25,
                "path": "operators[0].container.hostVolumePath",
                "severity": "error",
                "code": "unknown-key",
                "message": "a container has no 'hostVolumePath'",
                "expected": "it may have image, tag, command",
            }
        ],
        "pipeline": None,
    }


def test_the_docs_name_every_json_field(bad: Path) -> None:
    page = (ROOT / "docs" / "pipelines.md").read_text()
    for line in run("check", "--json", GOOD, bad).stdout.splitlines():
        told = json.loads(line)
        for field in (*told, *(told["pipeline"] or {}), *(name for one in told["findings"] for name in one)):
            assert f"`{field}`" in page, field


def test_the_docs_name_every_code() -> None:
    page = (ROOT / "docs" / "pipelines.md").read_text()
    listed = set(re.findall(r"`([a-z-]+)`", page.partition("Codes: ")[2].partition("\n\n")[0]))
    assert listed == set(get_args(Code))


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    text = "".join(f"key{number}: 1\n" for number in range(900))
    (tmp_path / "p.yaml").write_text(text)
    command = f"{sys.executable} -m pipelines check {tmp_path / 'p.yaml'} {'x.yaml ' * 2000} | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_file_names_that_are_no_text(tmp_path: Path) -> None:
    name = bytes(tmp_path) + b"/\xff\x1b.yaml"
    with open(name, "w") as file:  # noqa: PTH123 - a path of bytes
        file.write(BAD)
    command = [sys.executable, "-m", "pipelines", "check", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60)
    assert done.returncode == 1
    assert b"\x1b" not in done.stdout
    assert done.stderr == b""


@pytest.mark.parametrize("command", ["check {}", "argo {}", "run {} --input . --output /nowhere --dry-run"])
@pytest.mark.parametrize(("where", "code", "said"), [("/dev/full", 14, "No space left on device"), ("&-", 0, "")])
def test_a_standard_output_that_takes_nothing(command: str, where: str, code: int, said: str) -> None:
    line = f"{sys.executable} -m pipelines {command.format(GOOD)} >{where}"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_value_that_is_no_text() -> None:
    command = [sys.executable, "-m", "pipelines", "argo", GOOD, "-p", b"WORKERS=\xff"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not UTF-8" in done.stderr
