"""Pixel size, objective power and colour profile."""

from __future__ import annotations

import math
import time

import pytest
import tifffile

from nuclei_segmentation.shared.errors import UnreadableSlide
from nuclei_segmentation.shared.slides.metadata import PixelSize, choose_mpp
from tests.helpers.slides import tissue_like

OME = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<Instrument><Objective ID="o" NominalMagnification="40"/></Instrument>'
    '<Image><Pixels SizeX="64" {size}><Channel/></Pixels></Image></OME>'
)


@pytest.mark.parametrize(
    ("sizes", "mpp", "note"),
    [
        ([], None, "not given in the file"),
        ([PixelSize("A", 0.25, 0.25)], (0.25, 0.25), ""),
        ([PixelSize("A", 0, 0)], None, "0 µm (A) is implausible and is ignored"),
        ([PixelSize("A", math.nan, math.nan)], None, "nan µm (A) is implausible and is ignored"),
        ([PixelSize("A", math.inf, 1)], None, "inf × 1 µm (A) is implausible and is ignored"),
        ([PixelSize("A", 1e9, 1e9)], None, "1e+09 µm (A) is implausible and is ignored"),
        ([PixelSize("A", -0.5, -0.5)], None, "-0.5 µm (A) is implausible and is ignored"),
        ([PixelSize("A", 0.25, 0.26)], (0.25, 0.26), ""),
        ([PixelSize("A", 0.25, 0.5)], (0.25, 0.5), "x and y differ: 0.25 and 0.5 µm (A)"),
        (
            [PixelSize("A", 0.25, 0.25), PixelSize("B", 0.5, 0.5)],
            (0.25, 0.25),
            "A says 0.25 µm, B says 0.5 µm; A is used",
        ),
        ([PixelSize("A", 0.25, 0.25), PixelSize("B", 352, 352)], (0.25, 0.25), ""),
        ([PixelSize("A", 0, 0), PixelSize("B", 0.5, 0.5)], (0.5, 0.5), ""),
    ],
)
def test_the_choice_of_a_pixel_size(sizes, mpp, note):
    assert choose_mpp(sizes) == (mpp, note)


@pytest.mark.parametrize(
    ("options", "mpp"),
    [
        ({"resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}, 0.25),
        ({"resolution": (50800, 50800), "resolutionunit": "INCH"}, 0.5),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (4, 4), "resolutionunit": "NONE"}, None),
        ({"resolution": (0, 0), "resolutionunit": "CENTIMETER"}, None),
        ({}, None),
    ],
    ids=str,
)
@pytest.mark.parametrize("reader", ["jpeg", "openslide", "tiff"])
def test_tiff_resolution(make_tiff, opened, options, mpp, reader):
    info = opened(make_tiff(tissue_like(64, 64), compression="jpeg", **options), reader).info
    assert info.mpp == (None if mpp is None else pytest.approx((mpp, mpp), rel=1e-6))
    assert bool(info.mpp_note) == (mpp is None)


def test_an_implausible_size_in_a_real_file(more_slides, opened):
    info = opened(more_slides / "BRACS_1640_N_3_cropped.tiff").info
    assert info.mpp is None
    assert info.mpp_note == "1000 µm (OpenSlide) is implausible and is ignored"


def test_the_pixel_size_of_a_dicom_slide(more_slides, opened):
    info = opened(more_slides / "camelyon_overview.dcm").info
    assert (info.format, info.mpp) == ("dicom", (28.969, 28.968))


APERIO = "Aperio Image Library v11\r\n700x500 [0,0 700x500] (256x256) JPEG/RGB Q=30;|AppMag = 40|MPP = 0.2500|Left = 1"


@pytest.mark.parametrize("damaged", [False, True])
def test_aperio_with_and_without_openslide(make_tiff, opened, damaged):
    path = make_tiff(tissue_like(700, 500), "a.svs", compression="jpeg", description=APERIO)
    if damaged:  # OpenSlide reads the smallest level when it opens a slide, and fails here
        with tifffile.TiffFile(path) as tiff:
            end = tiff.pages[0].dataoffsets[1]
        with path.open("r+b") as file:
            file.truncate(end)
    info = opened(path).info
    assert (info.format, info.mpp, info.objective) == ("aperio", (0.25, 0.25), 40)


@pytest.mark.parametrize(
    ("size", "mpp"),
    [
        ('PhysicalSizeX="0.25" PhysicalSizeXUnit="µm" PhysicalSizeY="0.25" PhysicalSizeYUnit="µm"', 0.25),
        ('PhysicalSizeX="0.25" PhysicalSizeY="0.25"', 0.25),
        ('PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="250" PhysicalSizeYUnit="nm"', 0.25),
        ('PhysicalSizeX="0.00025" PhysicalSizeXUnit="mm"', 0.25),
        ("PhysicalSizeX='0.5' PhysicalSizeXUnit='&#181;m'", 0.5),
        ('PhysicalSizeX="2" PhysicalSizeXUnit="pixel"', None),
        ('PhysicalSizeX="NaN"', None),
        ('PhysicalSizeX="a lot"', None),
        ("", None),
    ],
)
def test_the_pixel_size_of_ome_metadata(make_tiff, opened, size, mpp):
    text = OME.format(size=size).encode()
    path = make_tiff(tissue_like(64, 64), compression="jpeg", description=text, order=">")
    info = opened(path).info
    assert (info.format, info.objective) == ("ome-tiff", 40)
    assert info.mpp == (None if mpp is None else pytest.approx((mpp, mpp)))


@pytest.mark.parametrize(
    "text",
    [
        '<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a "0.5">]><OME><Pixels PhysicalSizeX="&a;"/></OME>',
        '<!DOCTYPE OME [<!ENTITY a SYSTEM "file:///etc/passwd">]><OME><Pixels PhysicalSizeX="0.5"/>&a;</OME>',
        '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY l0 "l">'
        + "".join(f'<!ENTITY l{i + 1} "{f"&l{i};" * 10}">' for i in range(20))
        + '<OME PhysicalSizeX="&l20;"/>',
        "<OME>" + "<Pixels " * 200_000,
        "<OME><Pixels " + "PhysicalSizeX=" * 200_000,
        '<OME><Pixels PhysicalSizeX="' + "9" * 1_000_000 + '"/></OME>',
    ],
    ids=["entity", "external", "laughs", "open", "attributes", "long"],
)
def test_hostile_xml_is_ignored_at_once(make_tiff, opened, text):
    path = make_tiff(tissue_like(64, 64), compression="jpeg", description=text.encode())
    start = time.perf_counter()
    info = opened(path).info
    assert time.perf_counter() - start < 30
    assert info.mpp is None


@pytest.mark.parametrize("reader", ["jpeg", "openslide", "tiff"])
def test_colour_profile_is_kept(make_tiff, opened, reader):
    profile = bytes(range(256)) * 3
    path = make_tiff(tissue_like(64, 64), compression="jpeg", iccprofile=profile)
    assert opened(path, reader).info.icc == profile


@pytest.mark.parametrize("reader", ["jpeg", "openslide", "tiff"])
def test_a_colour_profile_that_every_page_would_hold_is_bounded(make_tiff, opened, reader):
    path = make_tiff(tissue_like(64, 64), compression="jpeg", iccprofile=bytes(15 << 20))
    with pytest.raises(UnreadableSlide, match=r"colour profile has 15 MiB, at most 8\.0 MiB are allowed"):
        opened(path, reader)
    path = make_tiff(tissue_like(64, 64), compression="jpeg", iccprofile=bytes(2 << 20))
    assert len(opened(path, reader).info.icc) == 2 << 20
