"""System errors get names that tell what to do."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
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


def test_each_refusal_says_what_to_do_about_it(tmp_path: Path) -> None:
    def said(number: int) -> str:
        return str(explain(OSError(number, os.strerror(number)), tmp_path / "image.tif", 5 << 20))

    assert "the disk quota is used up" in said(errno.EDQUOT)
    assert "free" not in said(errno.EDQUOT), "what is free on the disk is not theirs"
    assert "no space left" not in said(errno.EFBIG)
    assert "than a file may be on this file system: 5.0 MiB needed" in said(errno.EFBIG)
    assert "permissions" not in said(errno.EROFS) + said(errno.EIO) + said(errno.ENOSYS)
    assert "ulimit -n" in said(errno.EMFILE)


def test_a_limit_of_this_process_is_told_from_one_of_the_file_system(tmp_path: Path) -> None:
    """The system's own answer, not an invented one."""
    script = (
        "import resource; from pathlib import Path\n"
        "from nuclei_segmentation.operators.stitch.pyramid.disk_space import reserve\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        f"reserve(Path({str(tmp_path / 'image.tif')!r}), 2 << 20)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    expected = (
        "NoSpace: .*image.tif would be larger than a file of this process may be, 1.0 MiB .ulimit -f.: 2.0 MiB needed"
    )
    assert re.search(expected, done.stderr), done.stderr
    assert not (tmp_path / "image.tif").exists()
