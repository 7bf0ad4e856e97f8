"""Where chunks of nuclei end depends on the nuclei alone."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.nuclei import nuclei
from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei
from nuclei_segmentation.operators.stitch.outputs.chunks import chunks, join
from tests.helpers.nuclei_files import pieces

COUNT = 60
NUCLEI = nuclei(COUNT, vertices=5)
UNEVEN = [3, 40, 3, 3, 17, 3] * 10
"""Vertices of outlines that differ."""


def uneven() -> Nuclei:
    starts = np.cumsum([0, *UNEVEN])
    return replace(NUCLEI, vertices=np.arange(2 * starts[-1], dtype=np.int32).reshape(-1, 2), starts=starts)


def same(one: Nuclei, other: Nuclei, *, horizon: bool = True) -> bool:
    names = [field.name for field in fields(Nuclei) if field.name not in ("measurements", "horizon")]
    return (
        all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)
        and list(one.measurements) == list(other.measurements)
        and all(np.array_equal(one.measurements[name], other.measurements[name], True) for name in one.measurements)
        and (not horizon or one.horizon == other.horizon)
    )


@given(st.sets(st.integers(0, COUNT)), st.integers(1, 70), st.integers(1, 120))
def test_the_same_chunks_whatever_the_pieces(ends: set[int], size: int, vertices: int) -> None:
    whole = uneven()
    wanted = list(chunks([whole], size, vertices))
    found = list(chunks(pieces(whole, *sorted(ends)), size, vertices))
    assert len(found) == len(wanted)
    assert all(same(one, other, horizon=False) for one, other in zip(found, wanted, strict=True))


@given(st.sets(st.integers(0, COUNT)), st.integers(1, 70), st.integers(1, 120))
def test_all_nuclei_once_in_chunks_that_are_small_enough(ends: set[int], size: int, vertices: int) -> None:
    found = list(chunks(pieces(uneven(), *sorted(ends)), size, vertices))
    assert same(join(found), uneven())
    assert all(len(chunk) for chunk in found)
    assert all(chunk.starts[-1] <= vertices or len(chunk) == 1 for chunk in found)
    lasts = {int(chunk.labels[-1]) for chunk in found}
    assert lasts >= {*range(size, COUNT + 1, size), COUNT}


def test_a_chunk_is_not_cut_without_need() -> None:
    assert [len(chunk) for chunk in chunks([NUCLEI], 25, 10_000)] == [25, 25, 10]
    assert [len(chunk) for chunk in chunks([NUCLEI], 25, 50)] == [10, 10, 5, 10, 10, 5, 10]


def test_the_horizon_promises_no_more_than_the_pieces() -> None:
    given = [replace(piece, horizon=number) for number, piece in enumerate(pieces(NUCLEI, 20, 20, 30), 7)]
    found = [(int(chunk.labels[-1]), chunk.horizon) for chunk in chunks(given, 10)]
    assert found == [(10, 0), (20, 7), (30, 9), (40, 9), (50, 9), (60, 10)]


@pytest.mark.parametrize("pieces", [[], [pieces(NUCLEI, 0)[0]]], ids=["none", "empty"])
def test_no_nuclei_are_no_chunk(pieces: list[Nuclei]) -> None:
    assert not list(chunks(pieces))
