"""System errors get names that tell what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nuclei_segmentation.shared.errors import NoSpace, NucleiError, OutputError
from nuclei_segmentation.shared.runtime.disk import explain, writing


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.EROFS, OutputError),
        (errno.EACCES, OutputError),
        (errno.EIO, OutputError),
    ],
)
def test_system_errors_get_their_names(tmp_path: Path, number: int, kind: type[NucleiError]) -> None:
    with pytest.raises(kind, match=r"image\.tif"), writing(tmp_path / "image.tif", 5):
        raise OSError(number, os.strerror(number))


def test_the_figures_are_given_also_where_the_folder_is_not_there(tmp_path: Path) -> None:
    message = str(explain(OSError(errno.ENOSPC, "x"), tmp_path / "none" / "there", 5 << 20))
    assert "5.0 MiB needed" in message
    assert "free" in message
