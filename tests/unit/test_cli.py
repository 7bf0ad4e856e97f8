"""The command line is a contract: order, names and defaults are those of the original."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nuclei_segmentation.shared.errors import (
    ConfigError,
    InferenceUnavailable,
    InputError,
    Interrupted,
    LockLost,
    ModelError,
    NoSpace,
    NucleiError,
    OutputError,
    TooMuchDamage,
    UnreadableSlide,
    UsageError,
    retryable,
)
from nuclei_segmentation.shared.runtime import cli
from nuclei_segmentation.shared.settings import Settings, command_line

ROOT = Path(__file__).parents[2]
ORIGINAL_USAGE = """\
usage: main.py [-h] [-d DEBUG_LEVEL] [--input-path INPUT_PATH] [--output-path OUTPUT_PATH]
               [--config-path CONFIG_PATH] [-w NUM_WORKERS]
               [--mask-pixel-count-limit MASK_PIXEL_COUNT_LIMIT] [-t TILE_SIZE] [-m MODEL_NAME] [-o OVERLAP]
               command
"""


@pytest.fixture(autouse=True)
def _signal_handlers_as_they_were() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def parse(*arguments: str) -> Settings:
    return command_line.settings_from(command_line.parser({}).parse_args([*arguments, "segmentation"]), {})


def test_usage_is_the_originals_to_the_letter() -> None:
    assert command_line.parser({}).format_usage() == ORIGINAL_USAGE


def test_the_options_themselves_are_those_that_the_usage_shows() -> None:
    made = command_line.parser({})
    made.usage = None
    generated = " ".join(made.format_usage().split())
    assert generated == " ".join(ORIGINAL_USAGE.split())


def test_defaults_are_the_originals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "usable_cpus", lambda: 7)
    settings = parse()
    assert settings.input_path == Path("/input")
    assert settings.output_path == Path("/output")
    assert settings.config_path == Path("/config")
    assert settings.num_workers == 7
    assert settings.mask_pixel_count_limit == 1024 * 1024
    assert settings.tile_size == 256
    assert settings.model_name == "segmentation_unet_nuclei"
    assert settings.overlap == 0
    assert command_line.parser({}).parse_args(["x"]).debug_level == "INFO"


def test_every_option_in_short_and_long_form(tmp_path: Path) -> None:
    short = parse("-d", "debug", "-w", "3", "-t", "512", "-m", "other", "-o", "64")
    long = parse("--debug-level", "DEBUG", "--num-workers", "3", "--tile-size", "512", "--model-name", "other",
                 "--overlap", "64")  # fmt: skip
    assert short == long
    assert parse("--input-path", str(tmp_path)).input_path == tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        [],
        ["segmentation", "more"],
        ["segmentation", "-t", "100"],
        ["segmentation", "-t", "0"],
        ["segmentation", "-t", "-16"],
        ["segmentation", "-t", "1e3"],
        ["segmentation", "-o", "8"],
        ["segmentation", "-t", "64", "-o", "64"],
        ["segmentation", "-w", "0"],
        ["segmentation", "-w", "many"],
        ["segmentation", "-d", "LOUD"],
        ["segmentation", "-m", "../secret"],
        ["segmentation", "-m", ""],
        ["segmentation", "--mask-pixel-count-limit", "0"],
        ["segmentation", "--unknown"],
        ["segmentation", "--tile", "256"],
    ],
)
def test_a_bad_command_line_prints_usage_and_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments, {"segmentation": ("", lambda settings: None)})
    assert stop.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith(ORIGINAL_USAGE)
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), 2),
        (ConfigError(["x"]), 2),
        (InputError("x"), 10),
        (UnreadableSlide("x"), 11),
        (TooMuchDamage("x"), 12),
        (OutputError("x"), 13),
        (NoSpace("x"), 14),
        (ModelError("x"), 15),
        (InferenceUnavailable("x"), 16),
        (LockLost("x"), 19),
        (NucleiError("x"), 70),
        (MemoryError(), 70),
        (KeyError("x"), 70),
    ],
)
def test_every_error_has_its_exit_code_and_one_line(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(settings: Callable[[], Settings]) -> None:
        settings()
        raise error

    assert cli.main(["--config-path", str(tmp_path), "go"], {"go": ("", fail)}) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert " ERROR " in lines[0]


def test_all_errors_are_in_the_tree_that_the_module_draws() -> None:
    def below(kind: type[NucleiError]) -> set[type[NucleiError]]:
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    import nuclei_segmentation.shared.errors

    drawn = nuclei_segmentation.shared.errors.__doc__ or ""
    for kind in below(NucleiError):
        line = re.search(rf"\b{kind.__name__} +([0-9]+)", drawn)
        assert line, f"{kind.__name__} is not drawn"
        assert int(line[1]) == kind.exit_code
    assert f"Interrupted         {Interrupted(2).exit_code} or {Interrupted(15).exit_code}" in drawn


def test_what_is_worth_a_retry_is_what_the_docs_say() -> None:
    rows = [
        line.split(" | ") for line in (ROOT / "docs" / "errors.md").read_text().splitlines() if line.startswith("| ")
    ]
    said = [int(code) for row in rows if row[-1].startswith("yes") for code in re.findall(r"[0-9]+", row[0])]
    assert list(retryable()) == said == [16, 17, 19, 130, 143]


@pytest.mark.parametrize(
    ("environment", "servers"),
    [
        ({}, ()),
        ({"NVIDIA_CLARA_TRTISURI": ""}, ()),
        ({"NVIDIA_CLARA_TRTISURI": "172.24.0.2:8000"}, ("172.24.0.2:8000",)),
        ({"NVIDIA_CLARA_TRTISURI": "http://gpu:8000/"}, ("gpu:8000",)),
        ({"NVIDIA_CLARA_TRTISURI": "a:1, b:2"}, ("a:1", "b:2")),
        ({"NVIDIA_TRITON_HTTPURI": "b:2", "CLARA_TRITON_URI": "c:3"}, ("b:2",)),
        ({"CLARA_TRITON_URI": "[::1]:8000"}, ("[::1]:8000",)),
    ],
)
def test_the_servers_come_from_the_environment(environment: dict[str, str], servers: tuple[str, ...]) -> None:
    assert command_line.settings_from(command_line.parser({}).parse_args(["x"]), environment).triton_servers == servers


@pytest.mark.parametrize("value", ["gpu", "https://gpu:8000", "gpu:eighty", "a:1,,b", "gpu:8000/v2"])
def test_an_address_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="host:port"):
        command_line.settings_from(command_line.parser({}).parse_args(["x"]), {"NVIDIA_CLARA_TRTISURI": value})


@pytest.mark.parametrize(
    ("value", "shared"),
    [(None, False), ("", False), ("TRUE", True), (" on ", True), ("1", True), ("no", False), ("False", False)],
)
def test_shared_memory_from_the_environment(value: str | None, shared: bool) -> None:
    environment = {} if value is None else {"NUCLEI_STORE_SHM": value}
    assert command_line.settings_from(command_line.parser({}).parse_args(["x"]), environment).store.shm is shared


def test_the_file_wins_over_the_environment(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("store: {shm: false}\n")
    given = command_line.parser({}).parse_args(["--config-path", str(tmp_path), "x"])
    assert not command_line.settings_from(given, {"NUCLEI_STORE_SHM": "1"}).store.shm


def test_a_switch_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="NUCLEI_STORE_SHM: 'maybe' is neither TRUE nor FALSE"):
        command_line.settings_from(command_line.parser({}).parse_args(["x"]), {"NUCLEI_STORE_SHM": "maybe"})


@pytest.mark.parametrize("folder", ["/", str(ROOT), str(ROOT / "operators")])
def test_the_launcher_works_from_any_folder(folder: str) -> None:
    done = subprocess.run(
        [sys.executable, "-u", str(ROOT / "operators" / "main.py"), "config"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "overlay:" in done.stdout
