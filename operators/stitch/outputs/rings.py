"""Outlines as closed rings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei, Vertices


def closed(nuclei: Nuclei) -> tuple[Vertices, npt.NDArray[np.int64]]:
    """Return the outlines with the first vertex of each once more at its end.

    Parameters
    ----------
    nuclei : Nuclei
        n nuclei with v vertices.

    Returns
    -------
    vertices : numpy.ndarray
        (v + n, 2) int32, in quarters of a level-0 pixel.
    starts : numpy.ndarray
        (n + 1,) int64, where each ring begins; the last is v + n.
    """
    starts = nuclei.starts + np.arange(len(nuclei.starts))
    last = np.zeros(len(nuclei.vertices) + len(nuclei), np.bool_)
    last[starts[1:] - 1] = True
    given = np.ascontiguousarray(nuclei.vertices).view(np.int64)[:, 0]  # one number a vertex is copied faster than two
    vertices = np.empty(len(last), np.int64)
    vertices[~last] = given
    vertices[last] = given.take(nuclei.starts[:-1])
    return vertices.view(np.int32).reshape(-1, 2), starts
