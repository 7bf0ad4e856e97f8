"""The ids of nuclei: the same nucleus of the same slide has the same id in every file, however often it is found."""

from __future__ import annotations

import hashlib
from uuid import UUID

import numpy as np
import numpy.typing as npt

NAMESPACE = UUID("3b6f4f4c-7a0e-5d0b-9c1e-52a8d0f3b7a1")
"""Of the ids of nuclei; never to be changed."""

_HEX = np.array([f"{byte:02x}" for byte in range(256)], "S2").view(np.uint16)


def ids(fingerprint: str, labels: npt.NDArray[np.uint32]) -> npt.NDArray[np.bytes_]:
    """Return a UUID of version 5 for each nucleus, as ``uuid5(NAMESPACE, f"{fingerprint}/{label}")`` makes it.

    Parameters
    ----------
    fingerprint : str
        Of the slide's content.
    labels : numpy.ndarray
        (n,) uint32.

    Returns
    -------
    numpy.ndarray
        (n,) of 36 ASCII characters each.
    """
    start = hashlib.sha1(NAMESPACE.bytes + f"{fingerprint}/".encode(), usedforsecurity=False)
    digests = []
    for label in labels.tolist():
        one = start.copy()
        one.update(b"%d" % label)
        digests.append(one.digest())
    numbers = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 20)[:, :16].copy()
    numbers[:, 6] = numbers[:, 6] & 0x0F | 0x50  # version 5
    numbers[:, 8] = numbers[:, 8] & 0x3F | 0x80  # variant of RFC 9562
    digits = _HEX.take(numbers).view(np.uint8)
    text = np.full((len(labels), 36), ord("-"), np.uint8)
    for first, end, dashes in ((0, 8, 0), (8, 12, 1), (12, 16, 2), (16, 20, 3), (20, 32, 4)):
        text[:, first + dashes : end + dashes] = digits[:, first:end]
    return text.view("S36")[:, 0]
