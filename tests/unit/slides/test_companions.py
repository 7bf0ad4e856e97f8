"""What may be opened to read a slide: regular files in its folder that are listed beforehand, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nuclei_segmentation.shared.errors import UnreadableSlide
from nuclei_segmentation.shared.slides import find_slide, fingerprint, open_slide, stat_of
from nuclei_segmentation.shared.slides.companions import files_of
from tests.helpers.dicom import DIRECTORY, dicom

VMS = """[Virtual Microscope Specimen]
NoLayers=1
NoJpegColumns=1
NoJpegRows=1
ImageFile={image}
MapFile={map}
OptimisationFile=x.opt
SourceLens=20
PhysicalWidth=1000
"""
MIRAX = """\ufeff[GENERAL]
SLIDE_NAME = C:\\slides\\one
[HIERARCHICAL]
INDEXFILE = {index}
[DATAFILE]
FILE_COUNT = 1
FILE_0 = {data}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an input folder, beside another patient's image."""
    (tmp_path / "other.jpg").write_bytes(b"another patient")
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def vms(folder: Path, image: str = "x.jpg", map_: str = "x_map.jpg", name: str = "x.vms") -> Path:
    (folder / name).write_text(VMS.format(image=image, map=map_))
    for file in ("x.jpg", "x_map.jpg", "x.opt"):
        (folder / file).write_bytes(file.encode())
    return folder / name


def mirax(folder: Path, index: str = "Index.dat", data: str = "Data0000.dat") -> Path:
    (folder / "x").mkdir()
    (folder / "x.mrxs").write_bytes(b"JPEG")
    (folder / "x" / "Slidedat.ini").write_text(MIRAX.format(index=index, data=data))
    for file in ("Index.dat", "Data0000.dat"):
        (folder / "x" / file).write_bytes(file.encode())
    return folder / "x.mrxs"


def refused(path: Path, part: str) -> None:
    """Check that nothing reads the slide, and that each says why."""
    for reads in (stat_of, fingerprint, open_slide):
        with pytest.raises(UnreadableSlide) as caught:
            reads(path)
        assert part in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 11


def test_the_files_that_a_key_file_names_belong_to_the_slide(folder: Path) -> None:
    path = vms(folder)
    (folder / "x.txt").write_text("not named")
    assert [file.name for file in files_of(path)] == ["x.jpg", "x.opt", "x.vms", "x_map.jpg"]
    before = fingerprint(path)
    (folder / "x_map.jpg").write_bytes(b"another")
    assert fingerprint(path) != before
    path.rename(folder / "x.svs")  # OpenSlide goes by the content
    assert len(files_of(folder / "x.svs")) == 4


@pytest.mark.parametrize("name", ["../other.jpg", "/etc/passwd", "sub/../../other.jpg", "..", "a\\\\b.jpg"])
@pytest.mark.parametrize("make", ["image", "map_", "index", "data"])
def test_a_name_that_leads_out_of_the_folder_is_refused(folder: Path, name: str, make: str) -> None:
    path = vms(folder, **{make: name}) if make in ("image", "map_") else mirax(folder, **{make: name})
    refused(path, "not a file in the slide's own folder")


@pytest.mark.parametrize(
    "line",
    ["  ImageFile  =  ../other.jpg  ", "ImageFile(0,0)=../other.jpg", "ImageFile(1,0,0)=../other.jpg\r"],
    ids=["spaces", "position", "layer"],
)
def test_names_are_found_however_they_are_written(folder: Path, line: str) -> None:
    path = vms(folder)
    path.write_text(VMS.format(image="x.jpg", map="x_map.jpg") + line + "\n")
    refused(path, "names '../other.jpg'")


@pytest.mark.parametrize("where", ["x.jpg", "x.opt", "x/Slidedat.ini", "x/Index.dat", "x/Data0000.dat", "x/unnamed"])
@pytest.mark.parametrize("what", ["pipe", "link out", "broken link", "loop", "device"])
def test_what_is_no_file_of_the_folder_is_refused_and_not_waited_for(folder: Path, where: str, what: str) -> None:
    path = mirax(folder) if where.startswith("x/") else vms(folder)
    file = folder / where
    file.unlink(missing_ok=True)
    if what == "pipe":
        os.mkfifo(file)
    else:
        target = {"link out": folder.parent / "other.jpg", "broken link": "gone", "loop": file, "device": "/dev/zero"}
        file.symlink_to(target[what])
    refused(path, {"pipe": "a named pipe", "link out": "leads out", "device": "leads out"}.get(what, "a broken link"))


def test_a_mirax_folder_that_is_a_link_elsewhere(folder: Path) -> None:
    mirax(folder)
    (folder / "x").rename(folder.parent / "elsewhere")
    (folder / "x").symlink_to(folder.parent / "elsewhere")
    refused(folder / "x.mrxs", "leads out")


def test_links_within_the_folder_are_followed(folder: Path) -> None:
    """As Kubernetes mounts files."""
    path = vms(folder)
    (folder / "..data").mkdir()
    (folder / "x.jpg").rename(folder / "..data" / "x.jpg")
    (folder / "x.jpg").symlink_to("..data/x.jpg")
    assert len(files_of(path)) == 4


def test_a_database_with_unfinished_changes(folder: Path) -> None:
    """SQLite would open these files, and files that they name."""
    (folder / "x.svslide").write_bytes(b"SQLite format 3\0" + bytes(1000))
    assert files_of(folder / "x.svslide") == [folder / "x.svslide"]
    os.mkfifo(folder / "x.svslide-journal")
    refused(folder / "x.svslide", "unfinished changes")


def test_a_pipe_in_the_folder_of_a_dicom_file(folder: Path) -> None:
    """OpenSlide opens every file of the folder, to find those of the same series."""
    (folder / "a").write_bytes(dicom(b"1.2.3.4"))
    os.mkfifo(folder / "notes")
    refused(folder / "a", "'notes', beside or below a, is a named pipe")
    assert find_slide(folder) == folder / "a"


def test_a_pipe_beside_other_slides_is_no_matter(folder: Path) -> None:
    (folder / "x.svs").write_bytes(b"II*\0" + bytes(100))
    os.mkfifo(folder / "notes")
    assert files_of(find_slide(folder)) == [folder / "x.svs"]


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("names", [("a.dcm", "b.dcm", "c.dcm"), ("a", "b", "c"), ("1.2.3.1", "1.2.3.2", "1.2.3.3")])
def test_a_dicom_series_is_one_slide_whatever_its_names(folder: Path, names: tuple[str, ...], explicit: bool) -> None:
    for name in names:
        (folder / name).write_bytes(dicom(b"1.2.3.4.5", explicit=explicit) + name.encode())
    (folder / "DICOMDIR").write_bytes(dicom(b"1.2.3.4.5", sop_class=DIRECTORY))
    assert find_slide(folder) == folder / names[0]
    assert [file.name for file in files_of(folder / names[0])] == list(names)
    before = fingerprint(folder / names[0])
    (folder / names[2]).write_bytes(dicom(b"1.2.3.4.5") + b"changed")
    assert fingerprint(folder / names[0]) != before
    (folder / names[1]).write_bytes(dicom(b"1.2.3.4.6"))  # a longer UID that begins alike is another one
    with pytest.raises(Exception, match="holds 2 slides"):
        find_slide(folder)
