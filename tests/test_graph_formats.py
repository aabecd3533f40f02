"""Every network as ONNX, through onnxruntime, and as a program of torch.export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.drawn_runs import make_run, small_config
from trainer.core.fields import Refused
from trainer.exporting import onnx_file
from trainer.exporting.network_call import CHECKED, NetworkCall
from trainer.exporting.onnx_file import OPSET, difference, write_onnx
from trainer.exporting.torch_program import write_program
from trainer.networks import GENERATORS
from trainer.runs.trained_generator import SamplingOptions, TrainedGenerator

# The smallest of each: what takes time is the number of layers.
SMALLEST: dict[str, dict[str, object]] = {
    **{name: {"size": 16} for name in ("dcgan", "mlp", "disconnected")},
    "stylegan2": {"size": 8, "d_channels": 16, "g_conditional": True, "classes": 3},
    "r3gan": {"size": 8, "d_channels": 16},
    "biggan": {"g_conditional": True, "classes": 3, "g_spectral_norm": True},
}

PROGRAMS = "stylegan2", "biggan"  # whose files of torch.export are read back: ONNX is made of the same graph


def call_of(name: str, folder: Path) -> NetworkCall:
    """Return a small generator as a function of tensors."""
    settings = SMALLEST.get(name, {})
    run = make_run(folder / "run", small_config(name, settings, "r3gan" if settings.get("size") == 8 else "mlp"))
    return NetworkCall.of(TrainedGenerator(run, SamplingOptions(truncation=0.7 if name == "stylegan2" else None)))


@pytest.mark.usefixtures("few_layers")
@pytest.mark.parametrize("name", GENERATORS)
def test_every_network_is_the_same_in_both(name: str, tmp_path: Path) -> None:
    call, file = call_of(name, tmp_path), tmp_path / "generator.onnx"
    said = write_onnx(call, file)
    assert f"opset {OPSET}" in said
    assert difference(call, file) < 1e-4
    model = onnx.load(file)
    assert [one.version for one in model.opset_import if not one.domain] == [OPSET]
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    inputs = {one.name: t.numpy() for one, t in zip(session.get_inputs(), call.other_inputs, strict=True)}
    assert list(inputs) == list(call.names)
    (alone,) = session.run(None, {name: t if name == "truncation" else t[:1] for name, t in inputs.items()})
    with torch.no_grad():
        expected = call.expected().numpy()
    assert expected.shape[0] == CHECKED
    assert expected.std() > 0.05
    np.testing.assert_allclose(alone, expected[:1], atol=1e-4)  # one picture, traced with two
    if name in PROGRAMS:
        assert "differs by 0.0e+00" in write_program(call, tmp_path / "generator.pt2")


def test_a_file_that_makes_other_pictures_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call, file = call_of("mlp", tmp_path), tmp_path / "generator.onnx"
    write_onnx(call, file)
    with torch.no_grad():
        call.function.generator.get_parameter("last.bias").add_(0.1)
    with pytest.raises(Refused, match="onnxruntime's pictures differ by"):
        difference(call, file)
    monkeypatch.setattr(onnx_file, "PACKAGES", ("onnx",))
    onnx_file.require_packages()
