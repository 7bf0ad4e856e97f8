"""What counts as one slide, and the messages if there is none or more than one."""

from __future__ import annotations

import os
import shutil
import socket

import pytest

from nuclei_segmentation.shared.errors import InputError
from nuclei_segmentation.shared.slides import find_slide
from nuclei_segmentation.shared.slides.companions import files_of
from tests.helpers.slides import tissue_like

TIFF = b"II*\0" + bytes(100)


def message(path) -> str:
    with pytest.raises(InputError) as caught:
        find_slide(path)
    assert caught.value.exit_code == 10
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 800
    return text


@pytest.mark.parametrize(
    "name", ["a.svs", "A.SVS", "x.tif", "x.ome.tiff", "x.ndpi", "x.scn", "x.bif", "name with é.tif"]
)
def test_the_one_slide_of_a_folder(tmp_path, name):
    (tmp_path / name).write_bytes(TIFF)
    for other in ("config_render.json", "config.yaml", ".hidden.svs", "readme.txt", "thumbnail.jpg"):
        (tmp_path / other).write_bytes(TIFF if other.startswith(".") else b"{}")
    assert find_slide(tmp_path) == tmp_path / name


def test_a_file_is_taken_as_it_is(tmp_path):
    file = tmp_path / "no.extension.known"
    file.write_bytes(b"x")
    (tmp_path / "other.svs").write_bytes(TIFF)
    assert find_slide(file) == file
    link = tmp_path / "link"
    link.symlink_to(file)
    assert find_slide(link) == link  # a link that the user names is followed


def test_a_slide_without_a_known_extension_is_found_by_its_content(tmp_path, make_tiff):
    make_tiff(tissue_like(64, 64), "slide").rename(tmp_path / "slide_without")
    (tmp_path / "notes").write_text("nothing")
    assert find_slide(tmp_path) == tmp_path / "slide_without"


def test_the_subfolder_slide_is_searched_only_if_the_folder_has_no_slide(tmp_path):
    (tmp_path / "slide").mkdir()
    (tmp_path / "slide" / "a.svs").write_bytes(TIFF)
    assert find_slide(tmp_path) == tmp_path / "slide" / "a.svs"
    (tmp_path / "b.svs").write_bytes(TIFF)
    assert find_slide(tmp_path) == tmp_path / "b.svs"


def test_a_subfolder_slide_may_be_a_link_but_its_files_may_not(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.svs").write_bytes(TIFF)
    (tmp_path / "in" / "slide").symlink_to(tmp_path / "other")
    assert find_slide(tmp_path / "in").name == "a.svs"
    (tmp_path / "other" / "a.svs").rename(tmp_path / "b.svs")
    (tmp_path / "other" / "a.svs").symlink_to(tmp_path / "b.svs")
    assert "leads out of the folder" in message(tmp_path / "in")


def test_none_and_several(tmp_path):
    assert "is empty" in message(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    assert "only notes.txt" in message(tmp_path)
    for name in ("c.svs", "a.svs", "b.tif", "d.ndpi"):
        (tmp_path / name).write_bytes(TIFF)
    assert "holds 4 slides" in message(tmp_path)
    assert "a.svs, b.tif, c.svs, …" in message(tmp_path)
    assert "No such file" in message(tmp_path / "gone")


def test_what_is_named_like_a_slide_but_is_not_a_file(tmp_path):
    (tmp_path / "x.svs").mkdir()
    assert "x.svs is a folder" in message(tmp_path)
    (tmp_path / "x.svs").rmdir()
    os.mkfifo(tmp_path / "x.svs")
    assert "named pipe" in message(tmp_path)
    assert "named pipe" in message(tmp_path / "x.svs")
    (tmp_path / "x.svs").unlink()
    (tmp_path / "x.svs").symlink_to(tmp_path / "gone")
    assert "broken symbolic link" in message(tmp_path)
    assert "broken symbolic link" in message(tmp_path / "x.svs")
    (tmp_path / "x.svs").unlink()
    (tmp_path / "x.svs").symlink_to(tmp_path / "x.svs")
    assert "broken symbolic link" in message(tmp_path)
    (tmp_path / "x.svs").unlink()
    (tmp_path / "x.svs").symlink_to("/dev/zero")
    assert "out of the folder" in message(tmp_path)
    assert "a device" in message(tmp_path / "x.svs")


def test_a_socket_is_no_slide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("x.svs")
        assert "socket" in message(tmp_path)


def test_links_are_followed_within_the_folder_only(tmp_path):
    folder, outside = tmp_path / "in", tmp_path / "outside.svs"
    folder.mkdir()
    outside.write_bytes(TIFF)
    (folder / "link.svs").symlink_to(outside)
    assert "out of the folder" in message(folder)
    (folder / "link.svs").unlink()
    (folder / ".data").write_bytes(TIFF)  # as Kubernetes mounts files: a link to a hidden file in the same folder
    (folder / "link.svs").symlink_to(".data")
    assert find_slide(folder) == folder / "link.svs"


def test_hundred_thousand_files(tmp_path):
    (tmp_path / "slide.svs").write_bytes(TIFF)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for number in range(20_000):  # fewer, to keep the test short; the cost is linear
        os.close(os.open(f"n{number}.txt", os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)
    assert find_slide(tmp_path).name == "slide.svs"
    (tmp_path / "slide.svs").rename(tmp_path / "slide.gone.json")
    assert "n0.txt, n1.txt" in message(tmp_path)


def test_names_that_are_not_text(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff\xfe\n\x1b[2J.svs"
    for other in (b"", b"2"):
        with open(name[:-4] + other + b".svs", "wb") as file:  # noqa: PTH123  # pathlib takes no bytes
            file.write(TIFF)
    assert "2 slides" in message(tmp_path)
    os.unlink(name)  # noqa: PTH108  # pathlib takes no bytes
    assert find_slide(tmp_path).read_bytes() == TIFF


def test_longest_names(tmp_path):
    (tmp_path / ("x" * 251 + ".svs")).write_bytes(TIFF)
    assert find_slide(tmp_path).stem == "x" * 251
    (tmp_path / ("y" * 251 + ".svs")).write_bytes(TIFF)
    assert "2 slides" in message(tmp_path)
    assert "too long" in message(tmp_path / ("z" * 300))
    assert "too long" in message(tmp_path / ("z/" * 2048))


def test_dicom_files_of_one_series_are_one_slide(tmp_path, more_slides):
    source = more_slides / "camelyon_overview.dcm"
    for name in ("b.dcm", "a.dcm", "c.dcm"):
        shutil.copy(source, tmp_path / name)
    assert find_slide(tmp_path) == tmp_path / "a.dcm"
    assert [file.name for file in files_of(tmp_path / "a.dcm")] == ["a.dcm", "b.dcm", "c.dcm"]
    data = bytearray(source.read_bytes())
    at = data.find(b"\x20\x00\x0e\x00UI") + 8
    data[at + 10] ^= 1  # another series
    (tmp_path / "d.dcm").write_bytes(data)
    assert "2 slides" in message(tmp_path)
    assert [file.name for file in files_of(tmp_path / "d.dcm")] == ["d.dcm"]


def test_mrxs_with_its_folder_is_one_slide(tmp_path):
    (tmp_path / "s.mrxs").write_bytes(b"x")
    (tmp_path / "s").mkdir()
    for name in ("Slidedat.ini", "Index.dat", "Data0000.dat"):
        (tmp_path / "s" / name).write_bytes(b"x")
    assert find_slide(tmp_path) == tmp_path / "s.mrxs"
    assert [file.name for file in files_of(tmp_path / "s.mrxs")] == [
        "s.mrxs",
        "Data0000.dat",
        "Index.dat",
        "Slidedat.ini",
    ]


def test_a_folder_without_permission(tmp_path):
    (tmp_path / "in").mkdir(mode=0)
    if os.geteuid() == 0:
        pytest.skip("root may list any folder")
    assert "Permission denied" in message(tmp_path / "in")
