"""Pixel size, objective power and colour profile."""

from __future__ import annotations

import math
import time

import pytest
import tifffile

from nuclei_segmentation.shared.errors import UnreadableSlide
from nuclei_segmentation.shared.slides import open_slide
from nuclei_segmentation.shared.slides.describe import log_slide
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
        ('PhysicalSizeX="0.25" PhysicalSizeXUnit="micron"', None),
        ('PhysicalSizeX="2.5" PhysicalSizeXUnit="&#197;"', None),
        ('PhysicalSizeX="2500" PhysicalSizeXUnit="&#197;"', 0.25),
        ('PhysicalSizeX="0.00000984251968503937" PhysicalSizeXUnit="in"', 0.25),
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


def profile(model: bytes) -> bytes:
    """Return a colour profile, as far as anybody looks into it."""
    head = bytearray(128)
    head[12:16], head[16:20], head[36:40] = b"mntr", model, b"acsp"
    return bytes(head) + bytes(range(256))


@pytest.mark.parametrize("reader", ["jpeg", "openslide", "tiff"])
def test_colour_profile_is_kept(make_tiff, opened, reader):
    path = make_tiff(tissue_like(64, 64), compression="jpeg", iccprofile=profile(b"RGB "))
    assert opened(path, reader).info.icc == profile(b"RGB ")


@pytest.mark.parametrize("model", [b"GRAY", b"CMYK", b"Lab ", b"6CLR", b"XYZ "])
@pytest.mark.parametrize("reader", ["jpeg", "openslide", "tiff"])
def test_the_profile_of_another_colour_model_is_dropped(make_tiff, opened, reader, model):
    path = make_tiff(tissue_like(64, 64), compression="jpeg", iccprofile=profile(model))
    assert opened(path, reader).info.icc is None


@pytest.mark.parametrize("tile", [(64, 64), None])
def test_a_grey_slide_loses_its_grey_profile(make_tiff, opened, tile):
    image = tissue_like(64, 64)[..., 0]
    path = make_tiff(image, photometric="minisblack", tile=tile, iccprofile=profile(b"GRAY"))
    assert opened(path).info.icc is None


@pytest.mark.parametrize(
    ("lines", "resolution", "mpp"),
    [
        ("unit=micron", (2, 4), (0.5, 0.25)),
        ("unit=um", (2, 2), (0.5, 0.5)),
        ("unit=µm", (2, 2), (0.5, 0.5)),
        ("unit=\\u00B5m", (2, 2), (0.5, 0.5)),
        ("unit=mm", (2000, 2000), (0.5, 0.5)),
        ("unit=cm", (20000, 20000), (0.5, 0.5)),
        ("unit=nm", (0.002, 0.002), (500e-3, 500e-3)),
        ("unit=inch", (50800, 50800), (0.5, 0.5)),
        ("unit=micron\nyunit=mm", (2, 2000), (0.5, 0.5)),
        ("unit=pixel", (2, 2), None),
        ("unit=", (2, 2), None),
        ("", (2, 2), None),
        ("unit=micron", (0, 0), None),
    ],
    ids=str,
)
@pytest.mark.parametrize("reader", ["openslide", "tiff"])
def test_the_pixel_size_of_imagej(make_tiff, opened, lines, resolution, mpp, reader):
    path = make_tiff(
        tissue_like(64, 64), resolution=resolution, resolutionunit="NONE", compression="deflate", tile=(64, 64),
        description=f"ImageJ=1.53t\nimages=1\n{lines}".encode(),
    )  # fmt: skip
    info = opened(path, reader).info
    assert info.mpp == (None if mpp is None else pytest.approx(mpp))


def test_imagej_may_state_its_pixels_in_centimetres_and_speak_of_micrometres(make_tiff, opened):
    """The unit that makes sense counts."""
    path = make_tiff(
        tissue_like(64, 64), resolution=(20000, 20000), resolutionunit="CENTIMETER",
        description=b"ImageJ=1.53t\nunit=micron",
    )  # fmt: skip
    assert opened(path).info.mpp == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize(
    ("text", "mpp"),
    [
        ('<DataObject><Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" PMSVR="IDoubleArray">'
         '"0.00025" "0.0005"</Attribute></DataObject>', (0.5, 0.25)),
        ('<A Name="DICOM_PIXEL_SPACING">&quot;0.00025&quot; &quot;0.00025&quot;</A>', (0.25, 0.25)),
        ("Converted from X|AppMag = 40|MPP = 0.2500|Left = 1", (0.25, 0.25)),
        ('{"objective": 40, "mpp": 0.25}', (0.25, 0.25)),
        ("MPP=0.25", (0.25, 0.25)),
        ("compressed with mpp lossless: 0.25", None),
        ("|MPP = .|", None),
    ],
    ids=["philips", "escaped", "as Aperio", "json", "plain", "words", "dot"],
)  # fmt: skip
def test_pixel_sizes_in_descriptions(make_tiff, opened, text, mpp):
    info = opened(make_tiff(tissue_like(64, 64), tile=None, description=text)).info
    assert info.mpp == (None if mpp is None else pytest.approx(mpp))


@pytest.mark.parametrize("reader", ["jpeg", "openslide", "tiff"])
@pytest.mark.parametrize(
    ("options", "note"),
    [
        ({}, ""),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, ""),
        ({"resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}, ""),
        ({"resolution": (350, 350), "resolutionunit": "CENTIMETER"}, "`mpp` in config.yaml says 0.25 µm, "),
    ],
    ids=["none", "nonsense", "the same", "another"],
)
def test_the_setting_wins_over_the_file(make_tiff, options, note, reader):
    path = make_tiff(tissue_like(64, 64), compression="jpeg", **options)
    with open_slide(path, mpp=(0.25, 0.25), reader=reader) as slide:
        assert slide.info.mpp == (0.25, 0.25)
        assert slide.info.mpp_note.startswith(note)
        assert bool(slide.info.mpp_note) == bool(note)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "pixel size: not given in the file; `mpp` in config.yaml states the right one"),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, "is ignored; `mpp` in config.yaml states the right one"),
        ({"resolution": (345, 345), "resolutionunit": "CENTIMETER"},
         "at 29 µm per pixel nuclei cannot be told apart; if it is wrong, `mpp` in config.yaml"),
        ({"resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}, None),
    ],
    ids=["none", "nonsense", "absurd", "sound"],
)  # fmt: skip
def test_a_warning_on_the_pixel_size_names_the_setting(make_tiff, opened, caplog, options, said):
    log_slide(opened(make_tiff(tissue_like(64, 64), compression="jpeg", **options)).info)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == (said is not None)
    assert said is None or said in warnings[0]


@pytest.mark.parametrize("reader", ["jpeg", "openslide", "tiff"])
def test_a_colour_profile_that_every_page_would_hold_is_bounded(make_tiff, opened, reader):
    path = make_tiff(tissue_like(64, 64), compression="jpeg", iccprofile=profile(b"RGB ") + bytes(15 << 20))
    with pytest.raises(UnreadableSlide, match=r"colour profile has 15 MiB, at most 8\.0 MiB are allowed"):
        opened(path, reader)
    path = make_tiff(tissue_like(64, 64), compression="jpeg", iccprofile=profile(b"RGB ") + bytes(2 << 20))
    assert len(opened(path, reader).info.icc) > 2 << 20
