"""Numbers as text."""

from __future__ import annotations

from uuid import uuid5

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nuclei_segmentation.operators.stitch.outputs.identity import NAMESPACE, ids
from nuclei_segmentation.operators.stitch.outputs.text import decimals, integers, joined, quarters


def lines(columns: list[object], count: int) -> list[str]:
    return joined([*columns, b"\n"], count).decode().split("\n")[:-1]  # type: ignore[list-item] # both kinds of columns


@given(st.lists(st.integers(0, 10**14) | st.sampled_from([9_999, 10_000, 10_001, 10**8, 10**8 + 1]), min_size=1))
def test_integers(numbers: list[int]) -> None:
    assert lines(integers(np.array(numbers)), len(numbers)) == [str(number) for number in numbers]


@given(st.lists(st.integers(-(10**11), 10**11) | st.sampled_from([-1, 10_000, 99_999_999]), min_size=1))
def test_decimals_that_are_exact(numbers: list[int]) -> None:
    texts = lines(decimals(np.array(numbers) / 10_000), len(numbers))
    assert [round(float(text) * 10_000) for text in texts] == numbers
    assert not [text for text in texts if "." in text and text.endswith("0")]


def test_decimals_are_rounded_and_short() -> None:
    values = np.array([0, 1, 0.5, -0.25, 12.34567, 9999.99999, -0.00001, 0.0001, 1e9, np.nan, np.inf, -np.inf])
    wanted = ["0", "1", "0.5", "-0.25", "12.3457", "10000", "0", "0.0001", "1000000000", "", "", ""]
    assert lines(decimals(values), len(values)) == wanted


def test_quarters() -> None:
    table = quarters(200_003)
    assert table[[0, 1, 2, 3, 4, 39_999, 40_000, 40_001, 200_002]].tolist() == [
        *(b"0", b"0.25", b"0.5", b"0.75", b"1", b"9999.75", b"10000", b"10000.25", b"50000.5")
    ]
    assert len(table) == 200_003


def test_ids_are_uuids_of_version_5_of_fingerprint_and_label() -> None:
    labels = np.array([1, 2, 4_294_967_295], np.uint32)
    for fingerprint in ("ab" * 32, "cd" * 32):
        wanted = [str(uuid5(NAMESPACE, f"{fingerprint}/{label}")) for label in labels]
        assert [text.decode() for text in ids(fingerprint, labels).tolist()] == wanted
    assert str(NAMESPACE) == "3b6f4f4c-7a0e-5d0b-9c1e-52a8d0f3b7a1", "ids that users keep would change"
