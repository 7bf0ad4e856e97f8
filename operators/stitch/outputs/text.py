"""Numbers as text, many at once: looking digits up in tables is several times as fast as formatting each number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Texts = npt.NDArray[np.bytes_]
"""Texts of one width each; those that are shorter end in NUL characters, which `joined` takes out."""

DECIMALS = 4
"""Of measurements: 0.1 nm, or a ten-thousandth."""

_PLAIN = [str(number) for number in range(10_000)]
_LEADING = np.array(["", *_PLAIN[1:]], "S4")
"""Four digits with no digit but zeros before them, and some after them."""
_LAST = np.array([*_PLAIN, *(f"{number:04d}" for number in range(10_000))], "S4")
"""The last four digits; from 10,000 on with other digits before them."""
_INNER = np.concatenate([_LEADING, _LAST[10_000:]])
_FRACTION = np.array([f".{number:04d}".rstrip("0").rstrip(".") for number in range(10_000)], "S5")


def integers(numbers: npt.NDArray[np.integer]) -> list[Texts]:
    """Return whole numbers as decimal text.

    Parameters
    ----------
    numbers : numpy.ndarray
        (n,) integers, none below 0.

    Returns
    -------
    list of Texts
        What stands one after the other.
    """
    groups: list[Texts] = []
    rest = numbers.astype(np.int64)
    while True:
        quotient = rest // 10_000
        index = rest - quotient * 10_000 + 10_000 * (quotient > 0)
        groups.append((_INNER if groups else _LAST).take(index))
        if not quotient.any():
            return groups[::-1]
        rest = quotient


def decimals(values: npt.NDArray[np.float64]) -> list[Texts]:
    """Return numbers as decimal text, rounded to `DECIMALS` places, without zeros at the end.

    Parameters
    ----------
    values : numpy.ndarray
        (n,) float64, between ±10¹⁴. The text of one that is not finite is empty.

    Returns
    -------
    list of Texts
        What stands one after the other.
    """
    finite = np.isfinite(values)
    scaled = np.rint(np.abs(np.where(finite, values, 0)) * 10.0**DECIMALS).astype(np.int64)
    whole = scaled // 10**DECIMALS
    texts = [*integers(whole), _FRACTION.take(scaled - whole * 10**DECIMALS)]
    negative = (values < 0) & (scaled > 0)
    if negative.any():
        texts.insert(0, np.where(negative, b"-", b""))
    return texts if finite.all() else [np.where(finite, text, b"") for text in texts]


def quarters(count: int) -> Texts:
    """Return the texts of 0, 0.25, 0.5, 0.75, 1 and so on, `count` of them: the text of ``n / 4`` is at n."""
    whole = np.arange(count) >> 2
    most = len(str(count >> 2))
    table = np.zeros((count, most + len(".25")), np.uint8)
    for digits in range(1, most + 1):  # numbers of as many digits follow one another
        some = slice(4 * 10 ** (digits - 1) if digits > 1 else 0, 4 * 10**digits)
        for place in range(digits):
            table[some, place] = ord("0") + whole[some] // 10 ** (digits - 1 - place) % 10
        for quarter, text in enumerate((b".25", b".5", b".75"), start=1):
            table[some, digits : digits + len(text)][quarter::4] = np.frombuffer(text, np.uint8)
    return table.view(f"S{table.shape[1]}")[:, 0]


def joined(columns: Sequence[Texts | bytes], count: int) -> bytes:
    """Return rows of text, one after the other.

    Parameters
    ----------
    columns : Sequence of Texts or bytes
        What a row is made of, from left to right: a text for each row, or the same for all. No text holds a NUL.
    count : int
        Number of rows.
    """
    kinds = [("", f"S{max(1, len(one))}") if isinstance(one, bytes) else ("", one.dtype) for one in columns]
    rows = np.empty(count, kinds)
    for name, column in zip(rows.dtype.names or (), columns, strict=True):
        rows[name] = column
    return rows.tobytes().translate(None, b"\0")
