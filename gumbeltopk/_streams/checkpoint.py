"""The checkpoint file: written as a whole or not at all, and believed only if every byte is as it was written.

    magic, 8 bytes | version, uint32 | length of the header, uint64 | header, JSON | members, .npy | SHA-256 of it all

All numbers are little-endian. The header names the members with their lengths, which together with the rest must make
up the file; so nothing is allocated that is larger than the file. Nothing is pickled, on either way.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import shutil
import struct
import uuid
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gumbeltopk._array_api import Array
from gumbeltopk._messages import shown

MAGIC = b"\x89GTKres\n"  # no text file begins like this; a transfer that changes line ends breaks it
VERSION = 1
PREFIX = struct.Struct("<8sIQ")
DIGEST_BYTES = hashlib.sha256().digest_size
BYTES_AT_A_TIME = 1 << 20
NPY_VERSION = (1, 0)


class CheckpointError(ValueError):
    """A file that is no checkpoint of this package, or not as it was written.

    Attributes
    ----------
    args : tuple of str
        The message, as of any ValueError: the file, and what is wrong with it.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import gumbeltopk as gt
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "reservoir.gtk")
    ...     gt.Reservoir(10, rng=0).save(path)
    ...     path.write_bytes(path.read_bytes()[:-1])
    ...     gt.Reservoir.load(path)
    Traceback (most recent call last):
    gumbeltopk._streams.checkpoint.CheckpointError: ...reservoir.gtk: the checksum does not match: ...
    """


# --- writing ----------------------------------------------------------------------------------------


def write(path: str | os.PathLike[str], header: dict[str, Any], members: dict[str, Array]) -> None:
    """Write a checkpoint in place of `path`. Whatever happens, `path` is the old file or the new one."""
    path = as_path(path)
    blobs = {name: _npy_of(array) for name, array in members.items()}
    lengths = [[name, len(blob)] for name, blob in blobs.items()]
    text = json.dumps({"members": lengths, "content": header}, allow_nan=False).encode("ascii")
    parts = [PREFIX.pack(MAGIC, VERSION, len(text)), text, *blobs.values()]
    digest = hashlib.sha256(b"".join(parts)).digest()
    _replace(path, [*parts, digest])


def as_path(path: Any) -> Path:
    """A path; the number of an open file is none, as a file in its place could not be renamed."""
    try:
        return Path(os.fsdecode(path))
    except (TypeError, ValueError) as error:
        raise TypeError(f"path = {shown(path)}: {error}; pass the name of a file") from None


def _npy_of(array: Array) -> bytes:
    stream = io.BytesIO()
    try:
        np.lib.format.write_array(stream, np.ascontiguousarray(array), version=NPY_VERSION, allow_pickle=False)
        _array_of(stream.getvalue())  # NumPy writes some headers that it does not read
    except ValueError as error:
        raise TypeError(f"items of dtype {str(array.dtype)[:80]} cannot be saved: {error}") from None
    return stream.getvalue()


def _replace(path: Path, parts: list[bytes]) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")  # in the same folder: a rename is atomic there
    try:
        with open(temporary, "xb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(path, temporary)  # what was closed to others stays closed
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    if os.name == "posix":  # so that the rename, too, outlives a power cut; elsewhere folders cannot be opened
        with contextlib.suppress(PermissionError):  # a folder that cannot be read can still be written to
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


# --- reading ----------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str]) -> tuple[Any, dict[str, Array]]:
    """Header and members of a checkpoint; a CheckpointError if anything about the file is wrong."""
    path = as_path(path)
    with open(path, "rb") as file, named(path):
        size = os.fstat(file.fileno()).st_size
        header_length = _check_prefix(file.read(PREFIX.size), size)
        _check_digest(file, size)
        file.seek(PREFIX.size)
        header = json.loads(file.read(header_length))
        lengths = dict(header["members"])
        if PREFIX.size + header_length + sum(lengths.values()) + DIGEST_BYTES != size or min(lengths.values()) < 0:
            raise CheckpointError("the lengths of its parts do not make up its size")
        return header["content"], {name: _array_of(file.read(length)) for name, length in lengths.items()}


@contextlib.contextmanager
def named(path: str | os.PathLike[str]) -> Any:
    """Errors about the content of a file as CheckpointErrors with its name."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from None
    except OSError:
        raise
    except Exception as error:  # a forged file may make JSON, NumPy's header or a generator's state say anything
        raise CheckpointError(
            f"{os.fspath(path)}: its content makes no sense ({type(error).__name__}: {error})"
        ) from error


def _check_prefix(prefix: bytes, size: int) -> int:
    """The length of the header."""
    if prefix[: len(MAGIC)] != MAGIC[: len(prefix)] or not prefix:
        raise CheckpointError("this is no checkpoint of gumbeltopk: it begins with other bytes")
    if size < PREFIX.size + DIGEST_BYTES:
        raise CheckpointError(f"the file is cut short: it has {size} bytes")
    _, version, header_length = PREFIX.unpack(prefix)
    if version > VERSION:
        raise CheckpointError(
            f"the file is of version {version}, and this gumbeltopk reads up to {VERSION}; use a newer one"
        )
    if version < 1:
        raise CheckpointError(f"there is no version {version} of this format")
    if header_length > size - PREFIX.size - DIGEST_BYTES:
        raise CheckpointError(f"the file is cut short: a header of {header_length} bytes in a file of {size}")
    return int(header_length)


def _check_digest(file: BinaryIO, size: int) -> None:
    digest = hashlib.sha256()
    file.seek(0)
    left = size - DIGEST_BYTES
    while left > 0 and (part := file.read(min(left, BYTES_AT_A_TIME))):
        digest.update(part)
        left -= len(part)
    if file.read() != digest.digest():
        raise CheckpointError("the checksum does not match: the file was damaged or cut short; go back to another copy")


def _array_of(blob: bytes) -> Array:
    """The array of a .npy file, whose size must be that of its data."""
    stream = io.BytesIO(blob)
    if np.lib.format.read_magic(stream) != NPY_VERSION:
        raise CheckpointError("a member is of another version of the .npy format")
    shape, in_fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject or in_fortran_order:
        raise CheckpointError(f"a member has dtype {dtype} or an order that is never written")
    data = blob[stream.tell() :]
    if math.prod(shape) * dtype.itemsize != len(data) or min(shape, default=0) < 0:
        raise CheckpointError(f"a member of shape {shape} and dtype {dtype} has {len(data)} bytes of data")
    if not data:
        return np.empty(shape, dtype=dtype)
    return np.frombuffer(data, dtype=dtype).reshape(shape).copy()
