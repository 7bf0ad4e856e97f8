"""Which images of a TIFF file are channels, depths and times of one, and which of them are used.

A slide for this program is one RGB or grey image. Many files hold more: a fluorescence slide has a page, or a sample,
for each stain; a stack has a page for each depth or time. To take the first of them would give a result that says
nothing of the others. So a channel must be named (`channel` in config.yaml), unless the file says that three of them
are red, green and blue. Of several depths and times the first is used, with a warning, unless `plane` names another.

OME-XML and ImageJ's description tell what the pages are, and so does the JSON that tifffile writes; PerkinElmer's
QPTIFF names the channel of each page. In other files, grey pages of one size count as channels, RGB pages as planes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Final, NamedTuple

import numpy as np

from nuclei_segmentation.shared.errors import ConfigError, UnreadableSlide
from nuclei_segmentation.shared.runtime.outside import parse_json
from nuclei_segmentation.shared.slides import imagej
from nuclei_segmentation.shared.slides.jpeg import GREY, RGB
from nuclei_segmentation.shared.slides.ome import read_ome
from nuclei_segmentation.shared.slides.tiff_index import Directory

_WHITE_IS_ZERO: Final = 0
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_MOST_PLANES: Final = 100_000
_SHOWN: Final = 12  # most channels in a message
_LONGEST_NAME: Final = 60
_SHAPED: Final = '{"shape":'  # the start of tifffile's own description
_RED_GREEN_BLUE: Final = ("red", "green", "blue")
_COLOUR_NAMES: Final = {"r": "red", "g": "green", "b": "blue"} | {name: name for name in _RED_GREEN_BLUE}
_OME_COLOURS: Final = {-16776961: "red", 16711935: "green", 65535: "blue"}  # RGBA as a signed number
_FLUORESCENT: Final = ("Fluor", "EmissionWavelength", "ExcitationWavelength")  # attributes of a channel in OME
_NO_NAME: Final = re.compile(r"(channel|ch|c)?[\s:_#-]*[0-9:]*", re.IGNORECASE)
_NUCLEI: Final = re.compile(r"dapi|hoechst|h33342|draq|nucle|syto|dna|propidium|h(a)?ematoxylin", re.IGNORECASE)
_QPTIFF: Final = "<PerkinElmer-QPI-ImageDescription"
_QPTIFF_NAME: Final = re.compile(r"<Name>([^<>]{1,200})</Name>")


class Channel(NamedTuple):
    """A channel: its name, and which part of an RGB image it is; either may be empty."""

    name: str = ""
    colour: str = ""


class Place(NamedTuple):
    """Where one channel of one plane lies."""

    page: int
    """Number of the directory."""
    behind: int = 0
    """How many images further, where a file has one directory for many images without compression."""
    sample: int | None = None
    """Number of the sample, if a page holds several channels."""


@dataclass(frozen=True, slots=True)
class Stack:
    """All channels and planes of a file.

    Attributes
    ----------
    channels : tuple of Channel
        The channels. An RGB image is one.
    planes : tuple of str
        What each plane is, such as "z 2"; there is at least one.
    places : dict of tuple of int to Place
        Where each lies, by numbers of channel and plane. Some may be missing: they lie in other files.
    grey : bool
        Whether a channel is one sample, and not RGB.
    """

    channels: tuple[Channel, ...]
    planes: tuple[str, ...]
    places: Mapping[tuple[int, int], Place]
    grey: bool

    def listing(self) -> str:
        """Return the channels for a message: "1 FITC, 2 DAPI"."""
        shown = [f"{i + 1} {channel.name}".rstrip() for i, channel in enumerate(self.channels[:_SHOWN])]
        return ", ".join(shown) + (", …" if len(self.channels) > _SHOWN else "")


@dataclass(frozen=True, slots=True)
class Choice:
    """What is used of a file.

    Attributes
    ----------
    levels : tuple of Directory
        Level 0 and the reduced levels, largest first.
    alone : bool
        Whether the file holds no other channel or plane, so that any reader finds the same image.
    dark : bool
        Whether it is one of several stains, whose background is black.
    notes : tuple of str
        Which channel is used, and that three were put together, for the log.
    warnings : tuple of str
        What is left out although no setting says so.
    """

    levels: tuple[Directory, ...]
    alone: bool
    dark: bool
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


ONLY_RGB: Final = Stack((Channel(),), ("",), {}, grey=False)
"""The stack of a slide that only OpenSlide can take apart."""


def choose(
    directories: Sequence[Directory], channel: str | int | None = None, plane: str | int | None = None
) -> Choice:
    """Choose the image to use from the directories of a TIFF file.

    Parameters
    ----------
    directories : Sequence of Directory
        The directories of the file, in the order of its chain.
    channel, plane : str, int or None, optional
        Name or number, from 1, of the channel and of the plane. The channel "rgb" puts three together. None: whatever
        is the only one.

    Returns
    -------
    Choice
        The image, with its reduced levels.

    Raises
    ------
    UnreadableSlide
        There are several channels and none is named, or the image lies in another file.
    ConfigError
        There is no such channel or plane.
    """
    stack = read_stack(directories)
    channels, notes = _channels(stack, channel)
    plane_number, warnings = _plane(stack, plane)
    places = []
    for number in channels:
        place = stack.places.get((number, plane_number))
        if place is None:
            name = f"channel {number + 1}, plane {plane_number + 1}"
            raise UnreadableSlide(f"{name} lies in another file than this one; convert the slide to one file")
        places.append(place)
    pages = sorted({place.page for place in stack.places.values()})
    levels = [image_of([directories[place.page] for place in places], places)]
    below = [list(_reduced_levels(directories, pages, place.page)) for place in places]
    for reduced in zip(*below, strict=False):
        if len({(part.width, part.height) for part in reduced}) == 1:
            levels.append(image_of(reduced, [place._replace(behind=0) for place in places]))
    first = directories[places[0].page]
    if not stack.grey and first.samples > 3 and first.alpha not in (1, 2):
        warnings += (f"each pixel has {first.samples} samples; the first three are used, as red, green and blue",)
    others = [
        i + 1
        for i, d in enumerate(directories)
        if i not in pages and _may_be_a_page(d) and (d.width, d.height) == (first.width, first.height)
        and _bytes(d) != _bytes(first)
    ]  # fmt: skip
    if others:
        warnings += (f"page{'s' if len(others) > 1 else ''} {_numbers(others)} of the same size is not used",)
    dark = stack.grey and len(stack.channels) > 1 and len(channels) == 1
    return Choice(tuple(levels), len(stack.places) == 1, dark, notes, warnings)


def refuse_choice(channel: str | int | None, plane: str | int | None) -> None:
    """Raise ConfigError if a channel or plane is named that a plain RGB slide does not have.

    Parameters
    ----------
    channel, plane : str, int or None
        As for `choose`.
    """
    _channels(ONLY_RGB, channel)
    _plane(ONLY_RGB, plane)


def read_stack(directories: Sequence[Directory]) -> Stack:
    """Return what the directories of a TIFF file are.

    Parameters
    ----------
    directories : Sequence of Directory
        The directories, in the order of the file's chain.

    Raises
    ------
    UnreadableSlide
        The file claims an absurd number of planes.
    """
    for read in (_from_ome, _from_imagej, _from_tifffile):
        layout = read(directories)
        if layout is not None and layout.pages:
            return _stack(directories[0], layout)
    return _from_pages(directories)


@dataclass(slots=True)
class _Layout:
    """Where pages lie, each for one or, if it holds several samples, several channels."""

    sizes: dict[str, int]
    """Number of pages along each of the axes C, Z and T."""
    channels: Sequence[Channel]
    pages: dict[tuple[int, int, int], tuple[int, int]] = field(default_factory=dict)
    """Directory, and images behind it, by channel, depth and time."""


def _stack(base: Directory, layout: _Layout) -> Stack:
    samples, sizes = _channels_in_page(base), layout.sizes
    count = sizes["C"] * samples
    named = layout.channels if len(layout.channels) == count else [Channel()] * count
    places = {}
    for (c, z, t), (page, behind) in layout.pages.items():
        for sample in range(samples):
            place = Place(page, behind, sample if samples > 1 else None)
            places[c * samples + sample, t * sizes["Z"] + z] = place
    planes = tuple(
        ", ".join(f"{axis} {i + 1}" for axis, i in (("z", z), ("t", t)) if sizes[axis.upper()] > 1)
        for t, z in product(range(sizes["T"]), range(sizes["Z"]))
    )
    return Stack(tuple(named), planes, places, grey=_is_grey(base))


def _in_order(layout: _Layout, order: str, first: tuple[int, int, int], count: int) -> Iterator[tuple[int, int, int]]:
    """Yield channel, depth and time of `count` planes from the first on; the first axis of `order` changes fastest."""
    sizes = [layout.sizes[axis] for axis in order]
    at = dict(zip("CZT", first, strict=True))
    start = at[order[0]] + sizes[0] * (at[order[1]] + sizes[1] * at[order[2]])
    for number in range(start, min(start + count, math.prod(sizes))):
        rest, found = number, {}
        for axis, size in zip(order, sizes, strict=True):
            rest, found[axis] = divmod(rest, size)
        yield found["C"], found["Z"], found["T"]


def _check(sizes: Mapping[str, int]) -> None:
    if math.prod(sizes.values()) > _MOST_PLANES:
        raise UnreadableSlide(
            f"it claims {math.prod(sizes.values())} channels and planes; at most {_MOST_PLANES} are allowed"
        )


def _from_ome(directories: Sequence[Directory]) -> _Layout | None:
    base = directories[0]
    ome = read_ome(base)
    if ome is None:
        return None
    sizes = {
        axis: max(1, int(text)) if (text := ome.pixels.get(f"Size{axis}", "1")).isdecimal() else 1 for axis in "CZT"
    }
    together = _channels_in_page(base) if _is_grey(base) else min(base.samples, sizes["C"])
    sizes["C"] = max(1, sizes["C"] // together)
    _check(sizes)
    order = ome.pixels.get("DimensionOrder", "XYCZT")[2:]
    order = order if sorted(order) == sorted("CZT") else "CZT"
    layout = _Layout(sizes, [_ome_channel(attributes) for attributes in ome.channels])
    blocks = [(data.directory, data.first, data.count) for data in ome.tiff_data]
    if not blocks and not ome.elsewhere:
        blocks = [(0, dict.fromkeys("CZT", 0), None)]
    steps = 0
    for directory, first, count in blocks:
        start = (first["C"] // together if together > 1 else first["C"], first["Z"], first["T"])
        for i, at in enumerate(_in_order(layout, order, start, count or _MOST_PLANES)):
            steps += 1
            if directory + i >= len(directories) or steps > _MOST_PLANES:
                break
            if _same_size(directories[directory + i], base):
                layout.pages[at] = directory + i, 0
    return layout


def _ome_channel(attributes: Mapping[str, str]) -> Channel:
    name = _clean(attributes.get("Name") or attributes.get("Fluor") or "")
    fluorescent = any(key in attributes for key in _FLUORESCENT) or attributes.get("ContrastMethod") == "Fluorescence"
    colour = _COLOUR_NAMES.get(name.lower(), "")
    if not colour and _NO_NAME.fullmatch(name):
        text = attributes.get("Color", "")
        colour = _OME_COLOURS.get(int(text), "") if re.fullmatch(r"-?[0-9]{1,10}", text) else ""
    return Channel(name, "" if fluorescent else colour)


def _from_imagej(directories: Sequence[Directory]) -> _Layout | None:
    base = directories[0]
    lines = imagej.read_imagej(base)
    images = _whole(lines.get("images"), 1)
    if images == 1:
        return None
    keys = {"C": "channels", "Z": "slices", "T": "frames"}
    sizes = {axis: _whole(lines.get(key), 1) for axis, key in keys.items()}
    if not _is_grey(base):
        sizes["C"] = 1  # the channels of an RGB page are its samples
    _check(sizes)
    _check({"images": images})
    # What it does not explain may be channels, if nothing else is said; else it must be depths.
    rest = images // math.prod(sizes.values())
    sizes["C" if rest == images and _is_grey(base) else "Z"] *= max(1, rest)
    names = [_clean(label.splitlines()[0] if label else "") for label in imagej.labels(base)]
    labels = names[: sizes["C"]] if len(names) >= sizes["C"] else [""] * sizes["C"]
    colours = imagej.table_colours(base) or list(_RED_GREEN_BLUE)
    composite = lines.get("mode") == "composite" and sizes["C"] == len(colours) == 3
    channels = []
    for i, label in enumerate(labels):
        colour = _COLOUR_NAMES.get(label.lower(), "")
        if not colour and composite and _NO_NAME.fullmatch(label):
            colour = colours[i]
        channels.append(Channel(label, colour))
    layout = _Layout(sizes, channels)
    _in_directories(layout, directories, "CZT")
    return layout


def _from_tifffile(directories: Sequence[Directory]) -> _Layout | None:
    """Read the axes that tifffile may have written as JSON."""
    base = directories[0]
    if not base.description.startswith(_SHAPED) or len(base.description) > 20_000:
        return None
    try:
        document = parse_json(base.description)
        shape = [int(size) for size in document["shape"]]
        axes = str(document.get("axes", ""))
    except (ValueError, TypeError, KeyError, OverflowError, AttributeError):
        return None
    count = math.prod(shape) // (base.width * base.height * base.samples)
    if count <= 1 or min(shape) < 1:
        return None
    along = [axis for axis, size in zip(axes, shape, strict=False) if size > 1 and axis not in "XYS"]
    if len(axes) == len(shape) and set(along) <= set("CZT") and len(set(along)) == len(along):
        sizes = dict.fromkeys("CZT", 1) | {axis: shape[axes.index(axis)] for axis in along}
        if _channels_in_page(base) > 1:
            sizes["C"] = 1
    else:  # axes without a name
        along = ["C" if _is_grey(base) else "Z"]
        sizes = dict.fromkeys("CZT", 1) | {along[0]: count}
    _check(sizes)
    layout = _Layout(sizes, [])
    order = "".join(along[::-1])
    _in_directories(layout, directories, order + "".join(axis for axis in "CZT" if axis not in order))
    return layout


def _in_directories(layout: _Layout, directories: Sequence[Directory], order: str) -> None:
    """Lay the images of a layout out in the directories of the file, or behind the only one."""
    base, count = directories[0], math.prod(layout.sizes.values())
    here = 1
    while here < min(count, len(directories)) and _same_kind(directories[here], base):
        here += 1
    # One directory may stand for many images, which then follow each other without compression.
    follow = here == 1 and base.compression == 1 and not base.tiled
    for i, at in enumerate(_in_order(layout, order, (0, 0, 0), count)):
        if i < here:
            layout.pages[at] = i, 0
        elif follow:
            layout.pages[at] = 0, i


def _from_pages(directories: Sequence[Directory]) -> Stack:
    base = directories[0]
    pages: dict[tuple[int, int], int] = {}  # by their bytes: a directory may be listed twice
    for number, directory in enumerate(directories):
        if _same_kind(directory, base) and (not number or _may_be_a_page(directory)):
            pages.setdefault(_bytes(directory), number)
    layout = _Layout({"C": len(pages), "Z": 1, "T": 1}, [])
    if _is_grey(base):
        names = [_page_name(directories[page]) for page in pages.values()]
        layout.channels = [Channel(name, _COLOUR_NAMES.get(name.lower(), "")) for name in names]
        layout.pages = {(i, 0, 0): (page, 0) for i, page in enumerate(pages.values())}
        return _stack(base, layout)
    places = {(0, i): Place(page) for i, page in enumerate(pages.values())}
    planes = tuple(f"page {page + 1}" for page in pages.values()) if len(pages) > 1 else ("",)
    return Stack((Channel(),), planes, places, grey=False)


def _page_name(directory: Directory) -> str:
    if _QPTIFF in directory.description[:4000]:
        match = _QPTIFF_NAME.search(directory.description)
        return _clean(match[1]) if match else ""
    text = directory.page_name or directory.description
    return _clean(text) if len(text) <= _LONGEST_NAME and text.isprintable() else ""


def _may_be_a_page(directory: Directory) -> bool:
    return not directory.subfile_type & (_REDUCED | _MASK)


def _bytes(directory: Directory) -> tuple[int, int]:
    """Tell apart where in the file the pixels of directories lie."""
    return int(directory.offsets[0]), int(directory.offsets[-1])


def _is_grey(directory: Directory) -> bool:
    return directory.photometric in (_WHITE_IS_ZERO, GREY)


def _channels_in_page(directory: Directory) -> int:
    """Return how many channels a page holds: the grey samples that are not alpha; an RGB image is one channel."""
    return max(1, directory.samples - (directory.alpha in (1, 2))) if _is_grey(directory) else 1


def _same_size(one: Directory, other: Directory) -> bool:
    return (one.width, one.height, one.samples) == (other.width, other.height, other.samples)


def _same_kind(one: Directory, other: Directory) -> bool:
    def kind(directory: Directory) -> tuple[object, ...]:
        return directory.bits, directory.sample_format, _is_grey(directory), directory.tiled

    return _same_size(one, other) and kind(one) == kind(other)


def _channels(stack: Stack, wanted: str | int | None) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the numbers of the channel to use, or of three that are put together, and what to say of it."""
    channels = stack.channels
    colours = [channel.colour for channel in channels]
    if wanted is None:
        if len(channels) == 1:
            return (0,), ()
        if stack.grey and sorted(colours) == sorted(_RED_GREEN_BLUE):
            picked = tuple(colours.index(colour) for colour in _RED_GREEN_BLUE)
            return picked, (f"three channels ({stack.listing()}) are put together as red, green and blue",)
        nuclear = [channel.name for channel in channels if _NUCLEI.search(channel.name)]
        example = nuclear[0] if len(nuclear) == 1 else "1"
        together = (
            "; `channel: rgb` puts them together as red, green and blue" if stack.grey and len(channels) == 3 else ""
        )
        raise UnreadableSlide(
            f"it has {len(channels)} channels ({stack.listing()}); say in config.yaml which one to use by its name or "
            f"number, for instance `channel: {example}`{together}"
        )
    if not stack.grey and len(channels) == 1:
        raise ConfigError([f"channel: {wanted!r} is set, but the slide is an RGB image without channels; remove it"])
    names = [channel.name for channel in channels]
    if (
        stack.grey
        and len(channels) == 3
        and str(wanted).lower() == "rgb"
        and "rgb" not in [name.lower() for name in names]
    ):
        return (0, 1, 2), (f"three channels ({stack.listing()}) are put together as red, green and blue",)
    number = _resolve("channel", wanted, names, stack.listing())
    name = f", {names[number]}," if names[number] else ""
    return (number,), (f"channel {number + 1} of {len(channels)}{name} is used",)


def _plane(stack: Stack, wanted: str | int | None) -> tuple[int, tuple[str, ...]]:
    """Return the number of the plane to use, and what to warn of."""
    count = len(stack.planes)
    if wanted is None:
        if count == 1:
            return 0, ()
        return 0, (f"it has {count} planes; plane 1 ({stack.planes[0]}) is used; `plane` in config.yaml names another",)
    listing = ", ".join(f"{i + 1} {name}".rstrip() for i, name in enumerate(stack.planes[:_SHOWN]))
    return _resolve("plane", wanted, stack.planes, listing + (", …" if count > _SHOWN else "")), ()


def _resolve(setting: str, wanted: str | int, names: Sequence[str], listing: str) -> int:
    """Return the index of what a setting names: a number from 1, or a name, whose case does not matter."""
    if isinstance(wanted, int) and 1 <= wanted <= len(names):
        return wanted - 1
    text = str(wanted).strip()
    for same in (str.__eq__, lambda a, b: a.lower() == b.lower()):
        found = [i for i, name in enumerate(names) if name and same(name, text)]
        if len(found) == 1:
            return found[0]
        if found:
            numbers = ", ".join(str(i + 1) for i in found)
            raise ConfigError([f"{setting}: several are named {text!r}; give one of the numbers {numbers}"])
    if text.isdecimal() and len(text) < 10 and 1 <= int(text) <= len(names):
        return int(text) - 1
    count = f"{len(names)} {setting}{'' if len(names) == 1 else 's'}"
    raise ConfigError([f"{setting}: the slide has no {setting} {wanted!r}; it has {count}: {listing}"])


def image_of(parts: Sequence[Directory], places: Sequence[Place]) -> Directory:
    """Describe one grey image, an RGB image, or three channels that are put together, as one directory.

    Parameters
    ----------
    parts : Sequence of Directory
        The directory of each channel.
    places : Sequence of Place
        Where in it each channel lies: one, or three for red, green and blue.

    Raises
    ------
    UnreadableSlide
        Three channels are stored in ways that differ.
    """
    if len(parts) == 1:
        return _part(parts[0], places[0])
    first = parts[0]
    if places[0].sample is not None and first.planar == 1:
        samples = tuple(place.sample or 0 for place in places)
        return replace(first, photometric=RGB, alpha=0, picked=samples)
    single = [_part(part, place) for part, place in zip(parts, places, strict=True)]
    layouts = {
        (d.width, d.height, d.tile_width, d.tile_height, d.tiled, d.bits, d.photometric, d.compression, d.predictor,
         d.tables, d.samples)
        for d in single
    }  # fmt: skip
    if len(layouts) > 1 or first.photometric != GREY or single[0].samples != 1:
        raise UnreadableSlide(
            "its red, green and blue channels are stored in ways that differ; convert them to one RGB image"
        )
    return replace(
        single[0],
        photometric=RGB,
        samples=3,
        planar=2,
        offsets=np.concatenate([d.offsets for d in single]),
        counts=np.concatenate([d.counts for d in single]),
    )


def _part(directory: Directory, place: Place) -> Directory:
    """Describe one channel of a directory as a grey image."""
    if place.behind:
        size = directory.width * directory.height * directory.samples * directory.bits // 8
        directory = replace(directory, offsets=directory.offsets + place.behind * size)
    if place.sample is None:
        return directory
    if directory.planar == 1:
        return replace(directory, alpha=0, picked=(place.sample,))
    count = directory.rows * directory.columns
    here = slice(place.sample * count, (place.sample + 1) * count)
    return replace(
        directory, alpha=0, samples=1, planar=1, offsets=directory.offsets[here], counts=directory.counts[here]
    )


def _reduced_levels(directories: Sequence[Directory], pages: Sequence[int], page: int) -> list[Directory]:
    """Return the reduced levels of one of the pages of a stack, largest first."""
    base = directories[page]
    loose = len(pages) == 1 and base.description.startswith("Aperio")
    candidates = [d for d in directories[1:] if d.subfile_type & _REDUCED or loose]
    if len(pages) > 1:  # the levels of all pages stand side by side
        sizes = list(dict.fromkeys((d.width, d.height) for d in candidates if d.samples == base.samples))
        groups = [
            [d for d in candidates if (d.width, d.height) == size and d.samples == base.samples] for size in sizes
        ]
        candidates = [group[pages.index(page)] for group in groups if len(group) == len(pages)]
    levels: dict[tuple[int, int], Directory] = {}
    for directory in (*candidates, *base.subdirectories):
        downsample = base.width / directory.width
        same_shape = abs(base.height / downsample - directory.height) <= 1 + directory.height / 100
        if downsample > 1 and same_shape and directory.tiled:
            levels.setdefault((directory.width, directory.height), directory)  # one listed twice is one level
    return sorted(levels.values(), key=lambda d: -d.width)


def _numbers(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:_SHOWN])) + (", …" if len(numbers) > _SHOWN else "")


def _whole(text: str | None, default: int) -> int:
    return max(1, int(text)) if text is not None and re.fullmatch(r"[0-9]{1,9}", text) else default


def _clean(text: str) -> str:
    """Return a name from a file so that it is safe to print, and not longer than a name should be."""
    return "".join(c for c in text.strip() if c.isprintable())[:_LONGEST_NAME]
