"""Channels, depths and times: never one of several without a word."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from nuclei_segmentation.shared.errors import ConfigError, UnreadableSlide
from nuclei_segmentation.shared.slides import Slide, open_slide
from tests.helpers.slides import damaged_tiles, read_all, tissue_like

RGB = tissue_like(200, 150)
STAINS = np.stack([tissue_like(200, 150, seed)[..., 1] for seed in range(5)])
NAMES = ["FITC", "Cy3", "DAPI", "Cy5", "AF"]
TILED = {"tile": (64, 64), "compression": "deflate"}


@pytest.fixture
def slides() -> Iterator[list[Slide]]:
    found: list[Slide] = []
    yield found
    for slide in found:
        slide.close()


@pytest.fixture
def grey(slides: list[Slide]) -> Any:
    """Return a function that opens a slide and returns its pixels as grey."""

    def read(path: Path, **options: Any) -> np.ndarray:
        slides.append(open_slide(path, **options))
        pixels = read_all(slides[-1], 64)
        assert (pixels == pixels[..., :1]).all()
        shrunk = slides[-1].thumbnail(30_000).pixels.astype(int)
        assert np.abs(shrunk.mean() - pixels.mean()) < 1
        return pixels[..., 0]

    return read


def write(path: Path, data: np.ndarray, photometric: str = "minisblack", **options: Any) -> Path:
    tifffile.imwrite(path, data, photometric=photometric, **options)
    return path


def ome(path: Path, data: np.ndarray, axes: str = "CYX", photometric: str = "minisblack", **metadata: Any) -> Path:
    options = metadata.pop("options", TILED)
    return write(path, data, photometric, metadata={"axes": axes, **metadata}, ome=True, **options)


def several(tmp_path: Path) -> dict[str, Path]:
    """Return slides with the channels of `STAINS`, in the ways in which files hold them."""
    made = {
        "ome": ome(tmp_path / "a.ome.tif", STAINS, Channel={"Name": NAMES}),
        "strips": ome(tmp_path / "s.ome.tif", STAINS, Channel={"Name": NAMES}, options={"rowsperstrip": 30}),
        "big-endian": ome(tmp_path / "b.ome.tif", STAINS, Channel={"Name": NAMES}, options={"byteorder": ">"}),
        "imagej": write(tmp_path / "i.tif", STAINS, imagej=True, metadata={"axes": "CYX", "Labels": NAMES}),
        "pages": tmp_path / "pages.tif",
        "qptiff": tmp_path / "q.qptiff.tif",
        "samples": write(
            tmp_path / "n.tif", np.moveaxis(STAINS, 0, 2), planarconfig="contig", extrasamples=[0] * 4, metadata=None,
            **TILED,
        ),
        "planes": write(
            tmp_path / "m.tif", STAINS, planarconfig="separate", extrasamples=[0] * 4, metadata=None, **TILED
        ),
    }  # fmt: skip
    for name, text in (
        ("pages", "{}"),
        ("qptiff", "<?xml version='1.0'?><PerkinElmer-QPI-ImageDescription><ImageType>FullResolution</ImageType>"
                   "<Name>{}</Name><Color>0,0,255</Color></PerkinElmer-QPI-ImageDescription>"),
    ):  # fmt: skip
        with tifffile.TiffWriter(made[name]) as file:
            for stain, data in zip(NAMES, STAINS, strict=True):
                file.write(data, photometric="minisblack", description=text.format(stain), metadata=None, **TILED)
    return made


WAYS = ["ome", "strips", "big-endian", "imagej", "pages", "qptiff", "samples", "planes"]
UNNAMED = {"samples", "planes"}


@pytest.mark.parametrize("way", WAYS)
def test_several_channels_are_refused_with_their_names(tmp_path: Path, way: str) -> None:
    with pytest.raises(UnreadableSlide) as error:
        open_slide(several(tmp_path)[way])
    listed, example = ("1, 2, 3, 4, 5", "1") if way in UNNAMED else ("1 FITC, 2 Cy3, 3 DAPI, 4 Cy5, 5 AF", "DAPI")
    assert f"it has 5 channels ({listed})" in str(error.value)
    assert f"`channel: {example}`" in str(error.value)


@pytest.mark.parametrize("way", WAYS)
def test_a_channel_is_chosen_by_number_or_name(tmp_path: Path, grey: Any, way: str, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    path = several(tmp_path)[way]
    for number in range(5):
        assert np.array_equal(grey(path, channel=number + 1), STAINS[number])
    if way not in UNNAMED:
        assert np.array_equal(grey(path, channel="DAPI"), STAINS[2])
        assert np.array_equal(grey(path, channel=" cy5 "), STAINS[3])
        assert "channel 3 of 5, DAPI, is used" in caplog.text
    for wrong in ("TRITC", 6, "6", "rgb"):
        with pytest.raises(ConfigError) as error:
            open_slide(path, channel=wrong)
        assert "it has 5 channels: 1" in str(error.value)


@pytest.mark.parametrize("names", [["Red", "Green", "Blue"], ["r", "g", "b"], ["Blue", "Red", "Green"]])
@pytest.mark.parametrize(
    "options",
    [TILED, {"rowsperstrip": 30}, {}, TILED | {"compression": "jpeg2000"}],
    ids=["tiles", "strips", "one", "j2k"],
)
def test_three_channels_named_as_colours_are_an_rgb_image(tmp_path, opened, names, options, caplog):
    caplog.set_level(logging.INFO)
    order = ["rgb".index(name[0].lower()) for name in names]
    path = ome(tmp_path / "x.ome.tif", np.moveaxis(RGB, 2, 0)[order], Channel={"Name": names}, options=options)
    slide = opened(path)
    assert np.array_equal(read_all(slide, 64), RGB)
    assert np.abs(slide.thumbnail(200 * 150).pixels.astype(int) - RGB).max() <= 1
    assert "are put together as red, green and blue" in caplog.text


def test_three_jpeg_pages_are_an_rgb_image(tmp_path, opened):
    options = {"tile": (64, 64), "compression": "jpeg", "compressionargs": {"level": 95}}
    path = ome(tmp_path / "x.ome.tif", np.moveaxis(RGB, 2, 0), Channel={"Name": ["R", "G", "B"]}, options=options)
    assert np.abs(read_all(opened(path), 64).astype(int) - RGB).mean() < 3


def test_samples_of_one_page_are_put_together_in_their_order(tmp_path, opened, slides):
    for planar in ("contig", "separate"):
        data = np.moveaxis(RGB, 2, 0) if planar == "separate" else RGB
        path = write(tmp_path / f"{planar}.tif", data, planarconfig=planar, extrasamples=[0, 0], metadata=None, **TILED)
        with pytest.raises(UnreadableSlide, match="`channel: rgb` puts them together"):
            open_slide(path)
        slides.append(open_slide(path, channel="rgb"))
        assert np.array_equal(read_all(slides[-1], 64), RGB)


COLOURS = [-16776961, 16711935, 65535]


@pytest.mark.parametrize(
    ("channels", "together"),
    [
        ({"Color": COLOURS}, True),
        ({"Color": COLOURS, "Name": ["Channel 0", "Channel 1", "Channel 2"]}, True),
        ({"Color": COLOURS, "Name": ["TRITC", "FITC", "DAPI"]}, False),
        ({"Color": COLOURS, "Fluor": ["Cy3", "FITC", "DAPI"]}, False),
        ({"Color": COLOURS, "EmissionWavelength": [600, 520, 460]}, False),
        ({"Color": [65535, 16711935, 65535]}, False),
        ({"Name": ["Red", "Green", "Green"]}, False),
        ({}, False),
    ],
    ids=str,
)
def test_what_counts_as_red_green_and_blue_in_ome(tmp_path, opened, channels, together):
    path = ome(tmp_path / "x.ome.tif", np.moveaxis(RGB, 2, 0), Channel=channels)
    if together:
        assert np.array_equal(read_all(opened(path), 64), RGB)
    else:
        with pytest.raises(UnreadableSlide, match="it has 3 channels"):
            open_slide(path)


def lookup(colour: tuple[int, int, int]) -> np.ndarray:
    return np.outer(np.array(colour) > 0, np.arange(256)).astype(np.uint8)


RED, GREEN, BLUE, GREY = (lookup(c) for c in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)))


@pytest.mark.parametrize(
    ("metadata", "together"),
    [
        ({"mode": "composite"}, True),
        ({"mode": "composite", "LUTs": [RED, GREEN, BLUE]}, True),
        ({"mode": "composite", "LUTs": [GREY, GREEN, BLUE]}, False),
        ({"mode": "composite", "Labels": ["DAPI", "FITC", "Cy3"]}, False),
        ({"mode": "composite", "Labels": ["Red", "Green", "Blue"]}, True),
        ({"mode": "grayscale"}, False),
        ({}, False),
    ],
    ids=["composite", "tables", "other tables", "stains", "labels", "grayscale", "nothing"],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_what_counts_as_red_green_and_blue_in_imagej(tmp_path, opened, metadata, together, order):
    data = np.moveaxis(RGB, 2, 0)
    path = write(tmp_path / "x.tif", data, imagej=True, byteorder=order, metadata={"axes": "CYX", **metadata})
    if together:
        assert np.array_equal(read_all(opened(path), 64), RGB)
    else:
        with pytest.raises(UnreadableSlide, match="it has 3 channels"):
            open_slide(path)


@pytest.mark.parametrize("kind", ["imagej", "shaped", "axes"])
def test_images_behind_the_only_directory_are_seen(tmp_path, grey, kind):
    """ImageJ writes stacks above 4 GB so: one directory, and the images one after the other."""
    path = tmp_path / "x.tif"
    options = {"imagej": True, "metadata": {"axes": "CYX", "Labels": NAMES}} if kind == "imagej" else {}
    if kind == "axes":
        options = {"metadata": {"axes": "CYX"}}
    with tifffile.TiffWriter(path, imagej=options.pop("imagej", False)) as file:
        file.write(STAINS, photometric="minisblack", contiguous=True, truncate=kind != "imagej", **options)
    if kind == "imagej":
        with tifffile.TiffFile(path) as file:
            link = file.pages[0].offset + 2 + 12 * len(file.pages[0].tags)
        with path.open("r+b") as raw:
            raw.seek(link)
            raw.write(bytes(4))
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == 1
    with pytest.raises(UnreadableSlide, match="it has 5 channels"):
        open_slide(path)
    for number in range(5):
        assert np.array_equal(grey(path, channel=number + 1), STAINS[number])


@pytest.mark.parametrize(
    ("axes", "shape", "of"),
    [("ZYX", (5,), "5 planes; plane 1 (z 1)"), ("TYX", (5,), "5 planes; plane 1 (t 1)"),
     ("TZYX", (2, 2), "4 planes; plane 1 (z 1, t 1)")],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["ome", "imagej", "json"])
def test_of_several_depths_or_times_the_first_is_used_and_it_is_said(tmp_path, grey, caplog, axes, shape, of, kind):
    count = int(np.prod(shape))
    data = STAINS[:count].reshape(*shape, 150, 200)
    options = {"ome": {"ome": True}, "imagej": {"imagej": True}, "json": {}}[kind]
    path = write(tmp_path / ("x.ome.tif" if kind == "ome" else "x.tif"), data, metadata={"axes": axes}, **options)
    assert np.array_equal(grey(path), STAINS[0])
    assert f"it has {of} is used; `plane` in config.yaml names another" in caplog.text
    caplog.clear()
    for number in range(count):
        assert np.array_equal(grey(path, plane=number + 1), STAINS[number])
    assert "planes" not in caplog.text
    last = "z 2, t 2" if len(shape) > 1 else f"{axes[0].lower()} 5"
    assert np.array_equal(grey(path, plane=last), data.reshape(-1, 150, 200)[-1])
    with pytest.raises(ConfigError, match="no plane 6"):
        open_slide(path, plane=6)


def test_channel_and_plane_together(tmp_path, grey):
    data = STAINS[:4].reshape(2, 2, 150, 200)  # two depths of two channels
    path = ome(tmp_path / "x.ome.tif", data, "ZCYX", Channel={"Name": ["DAPI", "FITC"]})
    for z in range(2):
        for c, name in enumerate(("DAPI", "FITC")):
            assert np.array_equal(grey(path, channel=name, plane=z + 1), data[z, c])
    with pytest.raises(UnreadableSlide, match="2 channels"):
        open_slide(path, plane=2)


@pytest.mark.parametrize("order", ["XYCZT", "XYZCT", "XYTCZ"])
def test_ome_says_where_each_plane_lies(tmp_path, grey, order):
    data = STAINS[:4].reshape(2, 2, 150, 200)  # [channel, depth]
    pages = (
        [(c, z) for z in range(2) for c in range(2)]
        if order == "XYCZT"
        else [(c, z) for c in range(2) for z in range(2)]
    )
    if order == "XYTCZ":
        pages = [(c, z) for z in range(2) for c in range(2)]
    explicit = "".join(
        f'<TiffData FirstC="{c}" FirstZ="{z}" FirstT="0" IFD="{3 - i}" PlaneCount="1"/>'
        for i, (c, z) in enumerate(pages)
    )
    for name, places, listed in (("order", "<TiffData/>", pages), ("places", explicit, pages[::-1])):
        text = (
            f'<?xml version="1.0"?><OME><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="{order}" SizeX="200" '
            f'SizeY="150" SizeC="2" SizeZ="2" SizeT="1" Type="uint8"><Channel Name="A"/><Channel Name="B"/>{places}'
            '</Pixels></Image><Image ID="Image:1"><Pixels SizeC="9"><Channel Name="X"/></Pixels></Image></OME>'
        )
        path = tmp_path / f"{name}.ome.tif"
        with tifffile.TiffWriter(path) as file:
            for i, (c, z) in enumerate(listed):
                file.write(
                    data[c, z], photometric="minisblack", metadata=None, description=None if i else text, **TILED
                )
        for c, channel in enumerate("AB"):
            for z in range(2):
                assert np.array_equal(grey(path, channel=channel, plane=z + 1), data[c, z])


def test_a_channel_in_another_file_is_named_as_that(tmp_path, grey):
    text = (
        '<?xml version="1.0"?><OME UUID="urn:uuid:1"><Image>'
        '<Pixels DimensionOrder="XYCZT" SizeC="2" SizeZ="1" SizeT="1"><Channel Name="DAPI"/><Channel Name="FITC"/>'
        '<TiffData FirstC="0" IFD="0" PlaneCount="1"><UUID FileName="a.ome.tif">urn:uuid:1</UUID></TiffData>'
        '<TiffData FirstC="1" IFD="0" PlaneCount="1"><UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    path = write(tmp_path / "a.ome.tif", STAINS[0], metadata=None, description=text, **TILED)
    with pytest.raises(UnreadableSlide, match="2 channels"):
        open_slide(path)
    assert np.array_equal(grey(path, channel="DAPI"), STAINS[0])
    with pytest.raises(UnreadableSlide, match="lies in another file"):
        open_slide(path, channel="FITC")


def test_each_channel_has_its_own_reduced_levels(tmp_path, grey, slides):
    """Below each page, as OME has it; or side by side after all pages, as QPTIFF has it."""
    large = np.stack([cv2.resize(stain, (400, 300), interpolation=cv2.INTER_CUBIC) for stain in STAINS])
    sub, beside = tmp_path / "sub.ome.tif", tmp_path / "beside.tif"
    with tifffile.TiffWriter(sub, ome=True) as file:
        options = {"photometric": "minisblack", **TILED}
        file.write(large, subifds=1, metadata={"axes": "CYX", "Channel": {"Name": NAMES}}, **options)
        file.write(STAINS, subfiletype=1, **options)
    with tifffile.TiffWriter(beside) as file:
        for level, kind in ((large, 0), (STAINS, 1)):
            for name, data in zip(NAMES, level, strict=True):
                file.write(data, subfiletype=kind, description=name, metadata=None, **options)
    for path in (sub, beside):
        for number, name in enumerate(NAMES):
            assert np.array_equal(grey(path, channel=name), large[number])
            assert slides[-1].info.levels == ((400, 300), (200, 150))
            assert np.array_equal(slides[-1].thumbnail(200 * 150).pixels[..., 0], STAINS[number])


def test_channels_of_16_bits(tmp_path, grey):
    path = ome(tmp_path / "x.ome.tif", STAINS.astype(np.uint16) << 4, Channel={"Name": NAMES})
    assert np.array_equal(grey(path, channel="DAPI"), STAINS[2])


def test_rgb_pages_of_one_size_are_planes(tmp_path, slides, caplog):
    path = tmp_path / "x.tif"
    pages = [tissue_like(200, 150, seed) for seed in range(3)]
    with tifffile.TiffWriter(path) as file:
        for page in pages:
            file.write(page, photometric="rgb", metadata=None, **TILED)
    for plane, expected in ((None, 0), (1, 0), (3, 2), ("page 2", 1)):
        caplog.clear()
        slides.append(open_slide(path, plane=plane))
        assert np.array_equal(read_all(slides[-1], 64), pages[expected])
        assert ("it has 3 planes; plane 1 (page 1) is used" in caplog.text) == (plane is None)


def test_a_page_of_another_kind_is_not_passed_over_silently(tmp_path, opened, caplog):
    path = tmp_path / "x.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(STAINS[0], photometric="minisblack", metadata=None, **TILED)
        file.write(RGB, photometric="rgb", metadata=None, **TILED)
    assert np.array_equal(read_all(opened(path), 64)[..., 0], STAINS[0])
    assert "page 2 of the same size is not used" in caplog.text


def test_a_sample_that_is_no_colour_is_not_passed_over_silently(tmp_path, opened, caplog):
    data = np.dstack([RGB, STAINS[0]])
    path = write(tmp_path / "x.tif", data, "rgb", extrasamples=[0], metadata=None, **TILED)
    assert np.array_equal(read_all(opened(path), 64), RGB)
    assert "each pixel has 4 samples; the first three are used" in caplog.text


@pytest.mark.parametrize("way", ["levels", "mask", "alpha", "grey", "twice"])
def test_what_is_one_image_is_read_without_a_word(make_tiff, opened, caplog, tmp_path, way):
    if way == "levels":
        path = make_tiff(RGB, levels=2, compression="jpeg", tile=(64, 64))
    elif way == "mask":
        path = tmp_path / "x.tif"
        with tifffile.TiffWriter(path) as file:
            file.write(RGB, photometric="rgb", metadata=None, **TILED)
            file.write(STAINS[0], photometric="minisblack", subfiletype=1, metadata=None, **TILED)
        with tifffile.TiffFile(path, mode="r+") as file:
            file.pages[1].tags["NewSubfileType"].overwrite(4)  # tifffile does not write masks of 8 bits
    elif way == "alpha":
        path = make_tiff(np.dstack([STAINS[0], STAINS[1]]), photometric="minisblack", extrasamples=[2], tile=(64, 64))
    else:
        path = make_tiff(STAINS[0], photometric="minisblack", tile=(64, 64))
    opened(path)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("reader", ["jpeg", "openslide"])
def test_a_channel_or_plane_of_a_plain_slide_is_refused(make_tiff, reader):
    path = make_tiff(RGB, compression="jpeg" if reader == "jpeg" else "deflate")
    with pytest.raises(ConfigError, match="'DAPI' is set, but the slide is an RGB image"):
        open_slide(path, channel="DAPI")
    with pytest.raises(ConfigError, match="no plane 2; it has 1 plane"):
        open_slide(path, plane=2)
    open_slide(path, plane=1).close()


def leave_out(path: Path, pages: list[int], number: int) -> None:
    """Remove a tile of some pages, as a writer of sparse files does."""
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for page in pages:
            tag = tiff.pages[page].tags["TileByteCounts"]
            tag.overwrite([0 if i == number else count for i, count in enumerate(tag.value)])


def test_a_tile_that_was_left_out_is_black_in_a_stain_and_white_in_an_rgb_image(tmp_path, grey, opened):
    stained = ome(tmp_path / "x.ome.tif", STAINS[:2], Channel={"Name": NAMES[:2]})
    leave_out(stained, [0], 0)
    expected = STAINS[0].copy()
    expected[:64, :64] = 0
    assert np.array_equal(grey(stained, channel=1), expected)
    together = ome(tmp_path / "y.ome.tif", np.moveaxis(RGB, 2, 0), Channel={"Name": ["R", "G", "B"]})
    leave_out(together, [0, 1, 2], 0)
    assert (read_all(opened(together), 64)[:64, :64] == 255).all()
    leave_out(together, [1], 1)  # of this one red and blue are still there
    assert damaged_tiles(opened(together), 64) == {(0, 1)}


def test_a_long_stack(tmp_path, grey):
    stack = np.zeros((900, 16, 16), np.uint8) + np.arange(900, dtype=np.uint8)[:, None, None]
    path = write(tmp_path / "x.tif", stack, imagej=True, metadata={"axes": "TYX"})
    assert (grey(path, plane=600) == stack[599]).all()


def test_names_that_stand_twice(tmp_path, grey):
    path = ome(tmp_path / "x.ome.tif", STAINS[:3], Channel={"Name": ["DAPI", "FITC", "DAPI"]})
    with pytest.raises(ConfigError, match="several are named 'DAPI'; give one of the numbers 1, 3"):
        open_slide(path, channel="DAPI")
    assert np.array_equal(grey(path, channel=3), STAINS[2])


def test_a_name_that_is_a_number(tmp_path, grey):
    path = ome(tmp_path / "x.ome.tif", STAINS[:3], Channel={"Name": ["488", "2", "405"]})
    assert np.array_equal(grey(path, channel=405), STAINS[2])
    assert np.array_equal(grey(path, channel=1), STAINS[0])
    assert np.array_equal(grey(path, channel="2"), STAINS[1])


@pytest.mark.parametrize(
    "text",
    [
        '<OME><Image><Pixels SizeC="{n}" SizeZ="{n}" SizeT="{n}"/></Image></OME>',
        "ImageJ=1.53\nimages={n}\nchannels={n}\nslices={n}",
    ],
    ids=["ome", "imagej"],
)
def test_absurd_numbers_of_planes_are_refused_at_once(tmp_path, text):
    path = write(tmp_path / "x.tif", STAINS[0], metadata=None, description=text.format(n=999_999_999))
    with pytest.raises(UnreadableSlide, match="channels and planes; at most"):
        open_slide(path)


@pytest.mark.parametrize(
    "text",
    [
        '<OME><Image><Pixels SizeC="x" DimensionOrder="ZZZ"><TiffData IFD="77"/></Pixels></Image></OME>',
        '<OME><Image><Pixels SizeC="0" SizeZ="-1"/></Image></OME>',
        '<OME><Image><Pixels SizeC="1">' + '<TiffData IFD="0" PlaneCount="999999"/>' * 20_000,
        "<OME><Image><Pixels >" + "<TiffData " * 100_000,
        "ImageJ=\nimages=\nchannels=x\nslices=-3",
        '{"shape": [[[[[',
        '{"shape": [1, "a"], "axes": 3}',
        '{"shape": [' + "[" * 5000,
    ],
    ids=["words", "zero", "blocks", "open", "imagej", "json", "types", "nested"],
)
def test_nonsense_about_planes_is_ignored(tmp_path, grey, text):
    path = write(tmp_path / "x.tif", STAINS[0], metadata=None, description=text)
    assert np.array_equal(grey(path), STAINS[0])
