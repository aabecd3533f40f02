"""What a pickle may name: builders of tensors, arrays and containers, classes that become records, and inert values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainer.importing.tensor_builders import array_of, rebuilt_tensor, storage_of

PLAIN_KEYS = str, int, float, bool, bytes, type(None)


class BadPickle(Exception):
    """A pickle holds something else than data; the message says what."""


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass
class Record:
    """An object as data."""

    kind: str
    """The name of its class."""
    state: Any = field(default_factory=dict)
    """Its attributes, by name."""


# Modules whose classes may stand in a checkpoint as records.
RECORDS = (
    *("torch.nn.modules.", "torch.nn.parameter.", "training.networks", "training.augment", "torch_utils.persistence"),
    *("R3GAN.", "dnnlib.", "models.", "torch.optim.", "torch.utils.data."),
)
INERT = {  # names that are values, or that stand where a builder wants them
    *("numpy.ndarray", "numpy.dtype", "builtins.slice", "torch.device", "torch.Size", "torch.Tensor"),
    *(f"torch.{name}" for name in ("float32", "float16", "bfloat16", "float64", "int64", "int32", "uint8", "bool")),
    *("torch.contiguous_format", "torch.channels_last", "torch.preserve_format", "torch.serialization._get_layout"),
}


def persistent(meta: Any, *rest: Any) -> Record:
    """Return the record of an object whose class came with its source."""
    if not isinstance(meta, dict) or not isinstance(meta.get("class_name"), str):
        raise BadPickle("an object of torch_utils.persistence has no class name")
    return Record(meta["class_name"], meta.get("state", {}))


def mapping(*pairs: Any) -> dict[Any, Any]:
    """Return an ordered dictionary as one of Python's."""
    made: dict[Any, Any] = {}
    for key, value in pairs[0] if pairs and isinstance(pairs[0], list | tuple) else ():
        made[plain_key(key)] = value
    return made


def elements(items: Any = (), *rest: Any) -> list[Any]:
    """Return a set as a list: its members are data that nobody looks up."""
    if not isinstance(items, list | tuple):
        raise BadPickle("a set is made of no list")
    return list(items)


def parameter(data: Any, *rest: Any) -> Any:
    """Return a parameter's tensor."""
    return data


BUILDERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": rebuilt_tensor,
    "torch._utils._rebuild_parameter": parameter,
    "torch.storage._load_from_bytes": storage_of,
    "torch_utils.persistence._reconstruct_persistent_obj": persistent,
    "collections.OrderedDict": mapping,
    "collections.defaultdict": lambda *rest: {},
    "builtins.set": elements,
    "__builtin__.set": elements,
    "builtins.frozenset": elements,
    "torch.Size": elements,
    "torch.device": lambda *words: str(words),
    "torch.serialization._get_layout": lambda *words: str(words),
    **{
        f"{package}.multiarray.{name}": builder
        for package in ("numpy.core", "numpy._core")
        for name, builder in (
            ("_reconstruct", lambda *rest: Record("numpy.ndarray")),
            ("scalar", lambda kind, data=b"", *rest: array_of((1, (), kind, False, data)).item()),
        )
    },
    "numpy.dtype": lambda text, *rest: np.dtype(dtype_text(text)),
    "_codecs.encode": lambda text, *rest: str(text).encode("latin1"),
}


def dtype_text(text: Any) -> str:
    """Return a dtype's code, if it is one of numbers."""
    if not isinstance(text, str) or text.lstrip("<>=|")[:1] not in tuple("fiub") or len(text) > 4:
        raise BadPickle(f"a numpy array of the type {text!r}, which is no number")
    return text


def plain_key(key: Any) -> Any:
    """Return the key of a dictionary, if it is a plain one: Python would call the hash of another."""
    if not isinstance(key, PLAIN_KEYS):
        raise BadPickle(f"a dictionary has a key of type {type(key).__name__}")
    return key


def check_name(name: Name) -> Name:
    """Return a name, if it may stand in a checkpoint.

    Raises:
        BadPickle: it may not.
    """
    text = str(name)
    if text in BUILDERS or text in INERT or text.startswith(RECORDS):
        return name
    raise BadPickle(f"it names {text}, which is neither a tensor nor a plain container nor a class of this program")
