"""generator.onnx: the network for any runtime, and the comparison of what onnxruntime makes of it."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from pathlib import Path

import numpy as np
import torch

from trainer.core.fields import Refused
from trainer.exporting.network_call import NetworkCall

OPSET = 18
TOLERANCE = 1e-3  # of pictures in [-1, 1], where one step of a byte is 8e-3
PACKAGES = "onnx", "onnxscript"


def require_packages() -> None:
    """Refuse where what writes ONNX is not installed.

    Raises:
        Refused: naming the extra.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise Refused(f"--format onnx needs {' and '.join(missing)}: pip install 'lienzo[onnx]'")


def write_onnx(call: NetworkCall, file: Path) -> str:
    """Write the network, and say what it takes and how far onnxruntime is from it.

    Raises:
        Refused: onnxruntime makes other pictures of it.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter, about its own inside
        program = torch.onnx.export(
            call.program,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(call.names),
            output_names=["pictures"],
            external_data=False,
        )
    assert program is not None
    program.save(str(file), external_data=False)
    words = f"{file.name}: opset {OPSET}, inputs {', '.join(call.names)}, any number of pictures"
    if importlib.util.find_spec("onnxruntime") is None:
        return f"{words}; not compared, as onnxruntime is not installed"
    return f"{words}; onnxruntime differs by {difference(call, file):.1e} at most from PyTorch, of pictures in [-1, 1]"


def difference(call: NetworkCall, file: Path) -> float:
    """Return the largest difference of onnxruntime's pictures.

    Raises:
        Refused: it is too large.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    wanted = {one.name for one in session.get_inputs()}
    feeds = {name: t.numpy() for name, t in zip(call.names, call.other_inputs, strict=True) if name in wanted}
    (pictures,) = session.run(None, feeds)
    expected = call.expected().numpy()
    if pictures.shape != expected.shape:
        raise Refused(f"{file.name}: onnxruntime makes {pictures.shape} of it, in place of {expected.shape}")
    worst = float(np.abs(pictures - expected).max())
    if not worst <= TOLERANCE:
        raise Refused(
            f"{file.name}: onnxruntime's pictures differ by {worst:.1e} from PyTorch's, at most {TOLERANCE:g} is right"
        )
    return worst
