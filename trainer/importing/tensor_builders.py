"""Tensors and arrays from the bytes in a pickle, each no larger than these."""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


class BadTensor(Exception):
    """A tensor is not what it says that it is."""


@dataclass(frozen=True)
class Storage:
    """The numbers that tensors are views of."""

    flat: Tensor


def storage_of(data: Any, *rest: Any) -> Storage:
    """Return the storage that torch has written as bytes.

    Raises:
        BadTensor: the bytes are something else.
    """
    if not isinstance(data, bytes | bytearray):
        raise BadTensor("a storage is made of no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls its own form of storages deprecated
            loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            untyped, dtype = loaded.untyped(), loaded.dtype
    except Exception as error:  # whatever hostile bytes make torch raise
        raise BadTensor(f"the bytes of a storage cannot be read: {error}") from error
    return Storage(torch.empty(0, dtype=dtype).set_(untyped))


def rebuilt_tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    """Return the view of a storage that a tensor is.

    Raises:
        BadTensor: it is larger than the storage, or has strides that no weight has.
    """
    numbers = (offset, *size, *stride)
    if not isinstance(storage, Storage) or not all(type(number) is int and number >= 0 for number in numbers):
        raise BadTensor("a tensor has no storage, or a size that is no number")
    if len(size) != len(stride) or len(size) > 8 or offset + math.prod(size) > storage.flat.numel():
        raise BadTensor(f"a tensor says that it is {tuple(size)}, and its storage has {storage.flat.numel():,} numbers")
    try:
        return storage.flat.as_strided(tuple(size), tuple(stride), offset)
    except RuntimeError as error:
        raise BadTensor(str(error)) from error


def array_of(state: Any) -> Any:
    """Return the numpy array of a pickled state: (version, shape, dtype, Fortran's order, bytes).

    Raises:
        BadTensor: the bytes are not as many as it says, or no numbers.
    """
    if not isinstance(state, tuple) or len(state) != 5:
        raise BadTensor("a numpy array has no state")
    _, shape, dtype, fortran, data = state
    if isinstance(data, str):
        data = data.encode("latin1")
    if not isinstance(dtype, np.dtype) or dtype.hasobject or not isinstance(data, bytes):
        raise BadTensor("a numpy array is not of numbers")
    if not all(type(side) is int and side >= 0 for side in shape) or math.prod(shape) * dtype.itemsize != len(data):
        raise BadTensor(f"a numpy array says that it is {tuple(shape)}, and has {len(data):,} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C").copy()
