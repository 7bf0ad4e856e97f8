"""config.yaml: read whole, every problem at once, nothing hostile."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclei_segmentation.shared.errors import ConfigError
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.settings import config_file as config


def read(tmp_path: Path, text: str) -> Settings:
    (tmp_path / "config.yaml").write_text(text)
    return config.read_config(tmp_path, Settings())


def problems(tmp_path: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text)
    return error.value.problems


def test_a_folder_need_not_hold_a_file_and_the_usual_one_need_not_exist(tmp_path: Path) -> None:
    usual = Settings(config_path=tmp_path / "none")
    assert config.read_config(None, usual) == usual
    for name in ("config_render.json", "config.meta", "compose.yaml", "config.json", "notes.txt"):
        (tmp_path / name).write_text("jpeg: {quality: 70}")
    (tmp_path / "configs.yaml").mkdir()
    assert config.read_config(tmp_path, Settings()) == Settings()


def absent(folder: Path) -> Path:
    return folder / "none"


def a_link_to_nothing(folder: Path) -> Path:
    (folder / "config.yaml").symlink_to(folder / "gone.yaml")
    return folder


def below_a_file(folder: Path) -> Path:
    (folder / "file").write_text("")
    return folder / "file" / "config.yaml"


def a_name_too_long(folder: Path) -> Path:
    return folder / ("x" * 300)


def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "config.yaml")
    return folder


@pytest.mark.parametrize("name_it", [absent, a_link_to_nothing, below_a_file, a_name_too_long, a_pipe])
def test_a_configuration_that_is_named_and_cannot_be_had_is_an_error(
    name_it: Callable[[Path], Path], tmp_path: Path
) -> None:
    named = name_it(tmp_path)
    with pytest.raises(ConfigError) as caught:
        config.read_config(named, Settings())
    assert caught.value.exit_code == 2
    assert str(named) in str(caught.value)


@pytest.mark.parametrize("name", ["config.yaml", "config.yml", "mine", "a b.YAML"])
def test_the_file_itself_may_be_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("jpeg: {quality: 70}")
    assert config.read_config(tmp_path / name, Settings()).jpeg.quality == 70


@pytest.mark.parametrize(
    "name",
    ["config.yml", "Config.yaml", "CONFIG.YML", "config.yaml.txt", "config.yaml ", "conf.yaml", "configs.yaml",
     ".config.yaml", "config.yaml~", "config-1.yaml", "confg.yaml"],
)  # fmt: skip
def test_a_name_that_is_nearly_right_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("jpeg: {quality: 70}")
    for named, settings in ((tmp_path, Settings()), (None, Settings(config_path=tmp_path))):
        with pytest.raises(ConfigError, match=rf"holds {re.escape(name)}, but no config\.yaml"):
            config.read_config(named, settings)
    (tmp_path / "config.yaml").write_text("jpeg: {quality: 60}")
    assert config.read_config(tmp_path, Settings()).jpeg.quality == 60


def test_the_printed_reference_is_a_valid_file_that_changes_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, config.reference()) == Settings()


def test_the_printed_reference_holds_every_key() -> None:
    text = config.reference()
    for key in config.KEYS:
        assert key.meaning in text
        assert key.accepts.words in text


@pytest.mark.parametrize("eosin", ["[0.65, 0.7, 0.29]", "[1.3, 1.4, 0.58]"])
def test_two_stains_of_one_colour_are_refused(tmp_path: Path, eosin: str) -> None:
    with pytest.raises(ConfigError, match="same colour"):
        read(tmp_path, f"nuclei: {{eosin: {eosin}}}\n")


@pytest.mark.parametrize("text", ["[geojson, pdf]", "pdf", "1", "[[geojson]]", "{geojson: 1}"])
def test_outputs_are_words_of_a_list(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"outputs: .* is not some of geojson, table"):
        read(tmp_path, f"outputs: {text}\n")


def test_outputs_come_in_one_order_and_once(tmp_path: Path) -> None:
    assert read(tmp_path, "outputs: [table, geojson, table]\n").outputs == ("geojson", "table")
    assert read(tmp_path, "outputs: geojson table\n").outputs == ("geojson", "table")
    assert read(tmp_path, "outputs: none\n").outputs == ()


def test_every_key_reaches_the_settings() -> None:
    other = {
        "overlay.style": "fill", "overlay.color": [1, 2, 3], "overlay.opacity": 0.25, "overlay.threshold": 0.75,
        "jpeg.quality": 70, "jpeg.subsampling": 444, "mask.method": "none", "models.repository": "/m",
        "models.maps": ["a", "nucleus"],
        "models.input_scale": 0.5, "models.output": "logit", "inference.precision": "fp32", "inference.batch": 3,
        "inference.deadline": 2, "inference.retries": 1, "inference.in_flight": 2, "inference.shared_memory": False,
        "store.shm": True, "wait.limit": 5, "damaged.limit": 0.5, "overwrite": True, "shard": "1/3",
        "channel": "DAPI", "plane": 2, "mpp": 0.25, "outputs": ["geojson"], "nuclei.min_area": 0, "keep_maps": True,
        "nuclei.hematoxylin": [0.6, 0.7, 0.3], "nuclei.eosin": [0.1, 0.9, 0.1],
    }  # fmt: skip
    assert set(other) == {key.path for key in config.KEYS}
    for path, value in other.items():
        section, _, name = path.rpartition(".")
        changed = config.apply({section: {name: value}} if section else {name: value}, Settings())
        assert changed != Settings(), path


def test_mask_none_is_short_for_its_method(tmp_path: Path) -> None:
    assert read(tmp_path, "mask: none").mask.method == "none"


def test_all_problems_are_reported_at_once_with_suggestions(tmp_path: Path) -> None:
    found = problems(tmp_path, "overlay: {colour: [1, 2, 3], opacity: 2}\njpeg: {quality: high}\nquality: 3\nmask: x\n")
    assert len(found) == 5
    assert "overlay.color" in found[0]
    assert "from 0 to 1" in found[1]
    assert "'high'" in found[2]
    assert "jpeg.quality" in found[3]
    assert "tissue" in found[4]


@pytest.mark.parametrize(
    "text",
    [
        "overlay: [", "- a\n- b", "just words", "a: &x [1]\nb: *x", "overwrite: true\noverwrite: false",
        "!!python/object/apply:os.system ['true']", "overwrite: yes please", "overwrite: 1", "jpeg: {quality: true}",
        "jpeg: {quality: 85.5}", "damaged: {limit: .nan}", "damaged: {limit: .inf}", "overlay: fill",
        "\x00", "? {a: b}\n: c", "? [a]\n: c", "1: 2", "overlay: {1: 2}", "overlay: {color: [1, 2, 300]}",
        "models: {repository: 3}", "mask: {none: true}", 'mask: !!bool "zzz"', 'overlay: !!timestamp "hello"',
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_is_a_config_error(text: str, tmp_path: Path) -> None:
    for line in problems(tmp_path, text):
        assert "\n" not in line


def test_an_alias_bomb_deep_nesting_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(9))
    assert "aliases" in problems(tmp_path, bomb)[0]
    problems(tmp_path, "[" * 5000)
    assert "bytes" in problems(tmp_path, "#" * (config.LARGEST + 1))[0]


def test_a_file_that_is_no_file_and_one_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").mkdir()
    with pytest.raises(ConfigError, match="regular file"):
        config.read_config(tmp_path, Settings())
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.read_config(other, Settings())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["overlay", "jpeg", "mask", "damaged", "overwrite", "x"]), VALUES, max_size=4))
def test_any_document_gives_settings_or_a_config_error(document: dict[str, object]) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(config.apply(document, Settings()), Settings)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("channel: DAPI", "channel", "DAPI"),
        ("channel: 3", "channel", 3),
        ('channel: "3"', "channel", "3"),
        ("plane: 12", "plane", 12),
        ("mpp: 0.25", "mpp", (0.25, 0.25)),
        ("mpp: [0.25, 0.5]", "mpp", (0.25, 0.5)),
    ],
)
def test_what_of_a_slide_is_used(text: str, name: str, value: object, tmp_path: Path) -> None:
    settings = read(tmp_path, text)
    assert getattr(settings, name) == value
    assert config.check(settings) == settings


@pytest.mark.parametrize(
    "text",
    ["channel: 0", "channel: -1", "channel: true", 'channel: ""', 'channel: "a\\nb"', "plane: 1.5", "mpp: 0",
     "mpp: -0.5", "mpp: .nan", "mpp: 1000", "mpp: [0.5]", "mpp: [0.5, 0.5, 0.5]", "mpp: a", "channel: [1, 2]"],
)  # fmt: skip
def test_what_no_slide_can_have_is_refused(text: str, tmp_path: Path) -> None:
    assert text.split(":")[0] in problems(tmp_path, text)[0]
