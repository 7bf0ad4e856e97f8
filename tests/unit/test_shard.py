"""Shards: ranges of tiles, their names, and where they may be asked for."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclei_segmentation.shared.errors import ConfigError, UsageError
from nuclei_segmentation.shared.settings import Settings, command_line
from nuclei_segmentation.shared.settings import config_file as config
from nuclei_segmentation.shared.settings.shard import MOST, Shard

N = st.one_of(st.integers(0, 50), st.integers(0, 2**31))
COUNT = st.one_of(st.integers(1, 12), st.integers(1, MOST))


@given(N, COUNT)
def test_shards_cover_all_tiles_once_in_order_and_are_balanced(n: int, count: int) -> None:
    ranges = [Shard(number, count).range(n) for number in range(count)]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == n
    assert all(stop == start for (_, stop), (start, _) in itertools.pairwise(ranges))
    sizes = {stop - start for start, stop in ranges}
    assert min(sizes) >= 0
    assert max(sizes) - min(sizes) <= 1


@given(COUNT, st.data())
def test_text_and_folder_name_the_shard(count: int, data: st.DataObject) -> None:
    shard = Shard(data.draw(st.integers(0, count - 1)), count)
    assert Shard.parse(str(shard)) == shard
    assert Shard.named(shard.folder) == shard


WRONG = [
    "3/3",
    "1",
    "/",
    "1/",
    "/2",
    "0/0",
    "-1/2",
    "1/-2",
    "a/b",
    "1/2/3",
    "1 / 2",
    "0.0/1",
    "0/10000",
    "٠/٣",
    "0/3\n1",
]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_shard_is_refused_with_an_example(text: str, tmp_path: Path) -> None:
    assert Shard.parse(text) is None
    with pytest.raises(UsageError, match=r"^NUCLEI_SHARD: .* is not I/N.*0/3, 1/3 and 2/3"):
        settings(tmp_path, NUCLEI_SHARD=text)
    with pytest.raises(ConfigError, match=r"shard: .* is not I/N"):
        config.apply({"shard": text}, Settings())


@pytest.mark.parametrize("value", [0, 1.5, True, None, [0, 3], {"number": 0}])
def test_the_key_takes_text_only(value: object) -> None:
    with pytest.raises(ConfigError, match="shard"):
        config.apply({"shard": value}, Settings())


@pytest.mark.parametrize("name", ["shard-3-of-3", "shard-00-of-3", "shard-0-of-3.old", "Shard-0-of-3", "shard-0-of-03"])
def test_other_folders_are_no_shards(name: str) -> None:
    assert Shard.named(name) is None


def settings(folder: Path, **environment: str) -> Settings:
    return command_line.settings_from(
        command_line.parser({}).parse_args(["--config-path", str(folder), "filter"]), environment
    )


def test_the_variable_wins_over_the_key(tmp_path: Path) -> None:
    assert settings(tmp_path).shard is None
    assert settings(tmp_path, NUCLEI_SHARD=" 1/3 ").shard == Shard(1, 3)
    (tmp_path / "config.yaml").write_text("shard: 0/2\n")
    assert settings(tmp_path).shard == settings(tmp_path, NUCLEI_SHARD="").shard == Shard(0, 2)
    assert settings(tmp_path, NUCLEI_SHARD="1/3").shard == Shard(1, 3)
