"""Read a checkpoint of any of the forms that programs write, as plain containers of tensors."""

from __future__ import annotations

import logging
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from trainer.core.fields import Refused
from trainer.importing.pickle_machine import PickleMachine
from trainer.importing.pickle_names import BadPickle, Record

MOST_NESTED = 100  # modules in modules
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # how torch.save began before it wrote zip archives
log = logging.getLogger(__name__)


def read_checkpoint(file: Path) -> Any:
    """Return what a checkpoint holds; nothing of it runs.

    Raises:
        Refused: it cannot be read, or holds something else than data.
    """
    try:
        with file.open("rb") as opened:
            head = opened.read(len(LEGACY))
        if file.suffix == ".safetensors":
            return load_file(file)
        if zipfile.is_zipfile(file):
            check_archive(file)
            return read_by_torch(file)
        if head == LEGACY:
            return read_by_torch(file)
        return PickleMachine(file.read_bytes()).run()
    except (OSError, zipfile.BadZipFile, SafetensorError) as error:
        raise Refused(f"{file} cannot be read: {error}") from error
    except BadPickle as error:
        raise Refused(f"{file} is refused: {error}; nothing of it was run") from error


def check_archive(file: Path) -> None:
    """Refuse an archive that is larger inside than outside: torch.save does not compress.

    Raises:
        Refused: it is compressed, or says so.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    compressed = next((one.filename for one in entries if one.compress_type != zipfile.ZIP_STORED), None)
    if compressed is not None or sum(one.file_size for one in entries) > file.stat().st_size:
        raise Refused(f"{file} is refused: {compressed or 'its archive'} is compressed, which no torch.save does")


def read_by_torch(file: Path) -> Any:
    """Read a file of torch.save, weights only.

    Raises:
        Refused: it holds more than weights, or a tensor that is larger than its bytes.
    """
    # Numbers of numpy, such as the best FID, stand beside the weights of some programs.
    dtypes = [getattr(np.dtypes, name) for name in ("Float64DType", "Float32DType", "Int64DType")]
    scalar: Any = np.float64(0).__reduce__()[0]
    known: list[Any] = [np.dtype, *dtypes, scalar, (scalar, "numpy.core.multiarray.scalar")]
    try:
        with torch.serialization.safe_globals(known), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever hostile bytes make torch raise
        first = str(error).strip().partition("\n")[0]
        reason = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line), first)
        raise Refused(f"{file} is refused: torch reads weights alone of it, and says: {reason}") from error
    for name, tensor in all_tensors(content):
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise Refused(f"{file} is refused: {name} says that it is {tuple(tensor.shape)}, more than its bytes")
    return content


def all_tensors(content: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in nested containers, with dotted names.

    Raises:
        Refused: they are nested too deeply.
    """
    if depth > MOST_NESTED:
        raise Refused(f"containers are nested more than {MOST_NESTED} deep at {name[:60]}")
    if isinstance(content, Tensor):
        yield name, content
    elif isinstance(content, dict | list | tuple):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in items:
            yield from all_tensors(value, f"{name}.{key}" if name else str(key), depth + 1)


def state_of(module: Any, name: str = "", depth: int = 0) -> dict[str, Tensor]:
    """Return the tensors of a pickled module by the names of its state dict; of a state dict, those in it.

    Raises:
        Refused: modules are nested too deeply.
    """
    if depth > MOST_NESTED:
        raise Refused(f"modules are nested more than {MOST_NESTED} deep at {name[:60]}")
    if isinstance(module, dict):
        return {str(key).removeprefix("module."): value for key, value in module.items() if isinstance(value, Tensor)}
    found: dict[str, Tensor] = {}
    state = module.state if isinstance(module, Record) and isinstance(module.state, dict) else {}
    for group in ("_parameters", "_buffers"):
        named = state.get(group)
        for key, value in named.items() if isinstance(named, dict) else ():
            if isinstance(value, Tensor):
                found[f"{name}{key}"] = value
    inner = state.get("_modules")
    for key, value in inner.items() if isinstance(inner, dict) else ():
        if isinstance(value, Record):
            found |= state_of(value, f"{name}{key}.", depth + 1)
    return found


def attribute_of(module: Any, *path: str) -> Any:
    """Return an attribute of a module in a pickled one; None: there is none."""
    for name in path[:-1]:
        inner = module.state.get("_modules") if isinstance(module, Record) and isinstance(module.state, dict) else None
        module = inner.get(name) if isinstance(inner, dict) else None
    state = module.state if isinstance(module, Record) else None
    return state.get(path[-1]) if isinstance(state, dict) else None
