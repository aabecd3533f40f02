"""generator.pt2: the network as a program of torch.export, which needs no code of ours."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from trainer.core.fields import Refused
from trainer.exporting.network_call import NetworkCall
from trainer.exporting.onnx_file import TOLERANCE


def write_program(call: NetworkCall, file: Path) -> str:
    """Write the network, and say what it takes and how far the loaded program is from it.

    Raises:
        Refused: the program makes other pictures.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter, about its own inside
        torch.export.save(call.program, file)
        loaded = torch.export.load(file).module()
        worst = float((loaded(*call.other_inputs) - call.expected()).abs().max())
    if not worst <= TOLERANCE:
        raise Refused(
            f"{file.name}: its pictures differ by {worst:.1e} from the generator's, at most {TOLERANCE:g} is right"
        )
    return f"{file.name}: torch {torch.__version__}, inputs {', '.join(call.names)}; it differs by {worst:.1e} at most"
