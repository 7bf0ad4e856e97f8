"""Tensors that a model keeps in other files: which files these are, and whether they may be opened.

ONNX lets every tensor name a file, wherever it is in the model: among the weights, in an attribute of a node, in a
branch of an `If`, in a function. A model is somebody else's file. So the names may lead nowhere but to regular files in
the model's own folder.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped] # comes with onnx, without types
from onnx import helper

from nuclei_segmentation.shared.errors import ModelError
from nuclei_segmentation.shared.runtime.files import open_regular

#: Most bytes of all files of a model together. The largest networks for images have a few billion weights.
LARGEST = 16 << 30

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class ExternalTensor:
    """Where a tensor's bytes are.

    Attributes
    ----------
    file : str
        The name of its file, as the model gives it.
    offset : int
        Of its first byte.
    length : int or None
        In bytes; None for all that follow.
    """

    file: str
    offset: int
    length: int | None


class ExternalFile:
    """A file that some tensors of a model are in; to be used in a ``with`` block.

    Parameters
    ----------
    folder : pathlib.Path
        The model's.
    name : str
        As the model gives it.

    Raises
    ------
    ModelError
        It is not a regular file in that folder.
    OSError
        It does not exist or cannot be opened.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / name
        try:
            real, inside = self.path.resolve(), folder.resolve()
        except (ValueError, RuntimeError) as error:  # a zero byte, links in a circle
            raise ModelError(f"{folder}: the model names {name!r:.80} as a file of weights: {error}") from error
        if Path(name).is_absolute() or ".." in Path(name).parts or not real.is_relative_to(inside):
            raise ModelError(f"{self.path}: the weights of a model must lie in its own folder, {inside}")
        file = open_regular(real, os.O_RDONLY | os.O_NOFOLLOW)
        if file is None:
            raise ModelError(f"{self.path}: the weights of a model must be in a regular file")
        self._file = file
        self.size = os.fstat(file).st_size

    def __enter__(self) -> ExternalFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield bytes in pieces.

        Parameters
        ----------
        start, stop : int
            Which bytes; the file must have them.

        Yields
        ------
        bytes
            At most a MiB.

        Raises
        ------
        ModelError
            The file has become shorter.
        """
        while start < stop:
            chunk = os.pread(self._file, min(_CHUNK, stop - start), start)
            if not chunk:
                raise ModelError(f"{self.path} became shorter while it was read")
            start += len(chunk)
            yield chunk


def external_tensors(model: onnx.ModelProto, path: Path) -> list[ExternalTensor]:
    """Return all tensors of a model that are in other files.

    Parameters
    ----------
    model : onnx.ModelProto
        The model.
    path : pathlib.Path
        Its file, for messages.

    Raises
    ------
    ModelError
        A tensor does not say where it is.
    """
    found = []
    for tensor in _tensors(model):
        if not tensor.external_data and tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        name, offset, length = entries.get("location", ""), entries.get("offset", "0"), entries.get("length", "")
        if not name or not offset.isdecimal() or not (length.isdecimal() or not length):
            raise ModelError(f"{path}: tensor {tensor.name!r:.80} does not say where its weights are")
        found.append(ExternalTensor(name, int(offset), int(length) if length else _bytes(tensor)))
    return found


def _tensors(message: Message) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a model, however deep: graphs are in attributes of nodes, which are in graphs."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                yield from _tensors(part)


def _bytes(tensor: onnx.TensorProto) -> int | None:
    sides: list[int] = list(tensor.dims)
    try:
        return math.prod(sides) * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except (KeyError, TypeError):  # a type that NumPy does not have
        return None
