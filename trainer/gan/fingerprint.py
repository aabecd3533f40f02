"""One hash over a whole training state: two runs are equal if and only if their fingerprints are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trainer.core.migration import first_tensor_name, with_first_names


def fingerprint(tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> str:
    """Return one SHA-256 over a whole state, as hex digits: equal if and only if every bit is.

    The hashes of the dataset and the settings are left out: they say where a state came from, not what it is. All names
    are those of the first format, so that a state has the same fingerprint in every version.
    """
    values = {key: value for key, value in with_first_names(scalars).items() if key not in ("dataset", "identity")}
    # Sorted, here and below: the order in which a version lists its fields is no part of a state.
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    # Type and shape are hashed too: equal bytes of another type are another state.
    for name, tensor in sorted((first_tensor_name(name), tensor) for name, tensor in tensors.items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
