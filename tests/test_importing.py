"""Checkpoints of other programs: what fits becomes ours, and what is no data is refused without running.

The golden numbers are what the authors' own networks make of the same drawn weights: github.com/NVlabs/
stylegan2-ada-pytorch d72cc7d, github.com/NVlabs/stylegan3 c233a91 (T without classes, R with them),
github.com/brownvc/R3GAN 19a7ddf, github.com/ajbrock/BigGAN-PyTorch 9845943 and github.com/POSTECH-CVLab/
PyTorch-StudioGAN 947b35e, in float32 on a CPU. FastGAN's repository is empty now: its models.py is that of the copy
github.com/KuanChaoCHU/FastGAN-pytorch 8951871; D's logit is the mean of its large picture's.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.made_checkpoints import modules_named, write_r3gan, write_stylegan2, write_stylegan3
from tests.made_state_dicts import write_biggan, write_fastgan, write_studiogan, write_studiogan_resnet
from trainer.__main__ import main
from trainer.core.randomness import normal, philox
from trainer.importing.pickle_machine import PickleMachine
from trainer.importing.pickle_names import BadPickle
from trainer.networks import build_discriminator
from trainer.networks.base import Latent
from trainer.runs.trained_generator import SamplingOptions, TrainedGenerator

WRITERS = {
    "stylegan2-ada": write_stylegan2,
    "stylegan3": write_stylegan3,
    "r3gan": write_r3gan,
    "biggan": write_biggan,
    "fastgan": write_fastgan,
    "studiogan": write_studiogan,
    "studiogan resnet": write_studiogan_resnet,
}
GOLDEN: dict[tuple[str, int], tuple[float, float, float, float]] = {
    ("stylegan2-ada", 0): (-1.909381, 4.488245, 2.582134, 5.919410),
    ("stylegan2-ada", 3): (-1.084118, 5.530146, 2.788637, -6.676197),
    ("stylegan3", 0): (0.169180, 0.414914, -0.381513, 13.053802),
    ("stylegan3", 3): (1.015595, 1.106528, 0.714700, -8.205935),
    ("r3gan", 0): (0.041316, 1.162119, -1.800321, -8.224604),
    ("r3gan", 3): (-0.014062, 1.150969, -1.810403, 12.954139),
    ("biggan", 3): (-0.258433, 0.511529, -0.749871, 29.659157),
    ("fastgan", 0): (0.027492, 0.057242, 0.113439, -1.293385),
    ("studiogan", 3): (-0.026791, 0.246791, -0.323198, 44.452629),
    ("studiogan", 0): (0.038384, 0.141543, 0.109251, 37.374554),
    ("studiogan resnet", 3): (-0.017404, 0.196845, -0.156499, 41.323204),
}
"""By program and classes: mean, deviation and one value of the pictures, and the sum of D's logits of them."""


def imported(program: str, classes: int, folder: Path) -> tuple[TrainedGenerator, dict[str, dict[str, Tensor]]]:
    """Import a checkpoint that the program could have written."""
    states = WRITERS[program](folder / "network-snapshot.pkl", classes)
    name = program.partition(" ")[0]
    arguments = ["import", str(folder / "network-snapshot.pkl"), "--as", name, "--out", str(folder / "bundle")]
    beside = folder / "D.pth"
    assert main([*arguments, *(["--discriminator-file", str(beside)] if beside.exists() else [])]) == 0
    return TrainedGenerator(folder / "bundle", SamplingOptions()), states


@torch.no_grad()
def figures(trained: TrainedGenerator, classes: int, states: dict[str, dict[str, Tensor]]) -> tuple[float, ...]:
    """Return what GOLDEN holds, of three pictures of the classes 0, 2 and 1."""
    n, network = 3, trained.sampler.settings
    z = normal(philox("golden"), n, network.z_dim)
    label = torch.tensor([[0], [2], [1]]) if classes else torch.full((n, 1), -1)
    extra = trained.sampler.generator.extra(network, philox("golden noise"), n)
    for name, noise in states["G_ema"].items():
        if name.endswith("noise_const"):
            side, conv = name.split(".")[1][1:], int(name.split(".")[2][-1])
            extra[f"noise_{side}_{0 if side == '4' else conv}"] = noise.expand(n, 1, -1, -1)
    pictures = trained.sampler.generator(Latent(z, label, extra))
    config = trained.weights.config
    discriminator = build_discriminator(config.discriminator, config.network).eval()
    state = trained.weights.discriminator_state()
    assert state is not None
    discriminator.load_state_dict(state)
    logits = discriminator(pictures, label).logits
    return pictures.mean().item(), pictures.std().item(), pictures[1, 2, 3, 4].item(), logits.sum().item()


@pytest.mark.parametrize(("program", "classes"), GOLDEN)
def test_both_networks_are_the_authors(program: str, classes: int, tmp_path: Path) -> None:
    trained, states = imported(program, classes, tmp_path)
    assert figures(trained, classes, states) == pytest.approx(GOLDEN[program, classes], rel=1e-4, abs=1e-4)


def test_stylegan2_ada_becomes_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained, states = imported("stylegan2-ada", 3, tmp_path)
    said = capsys.readouterr().out
    assert "synthesis.b8.conv0.affine.weight" in said
    assert "blocks.0.up.conv.affine.weight" in said
    assert "passed over" in said
    network = trained.weights.config.network
    assert (network.size, network.g_channels, network.max_channels, network.classes) == (16, 6, 12, 3)
    assert torch.equal(trained.sampler.mean_code()[0], states["G_ema"]["mapping.w_avg"])
    picture = Path(said.rpartition("see: ")[2].strip())
    assert picture.read_bytes().startswith(b"\x89PNG")
    out = ("--out", str(tmp_path / "grid.png"))
    assert main(["sample", str(tmp_path / "bundle"), *out, "--class", "1", "--truncation", "0.7"]) == 0
    assert main(["export", str(tmp_path / "bundle"), "--out", str(tmp_path / "again"), "--discriminator"]) == 0


def test_fastgans_average_is_a_list_of_parameters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    states, file = write_fastgan(tmp_path / "all_1.pth", 0), tmp_path / "all_1.pth"
    arguments = ["--as", "fastgan", "--out", str(tmp_path / "live")]
    assert main(["import", str(file), "--no-ema", *arguments]) == 0
    live = TrainedGenerator(tmp_path / "live", SamplingOptions())
    norm = live.sampler.generator.state_dict()["first.norm.normalise.weight"]
    assert torch.equal(norm, states["G_ema"]["init.init.1.weight"] + 1)
    content = torch.load(file, weights_only=True)
    torch.save({"g": content["g"], "g_ema": content["g_ema"][1:]}, file)
    assert main(["import", str(file), "--as", "fastgan", "--out", str(tmp_path / "short")]) == 2
    assert "its g_ema is no list of the parameters of g (--no-ema takes g itself)" in capsys.readouterr().err
    larger = {name.replace("feat_256", "feat_512"): tensor for name, tensor in content["g"].items()}
    torch.save({"g": larger}, file)
    assert main(["import", str(file), "--as", "fastgan", "--out", str(tmp_path / "short")]) == 2
    assert "does not fit fastgan: it makes pictures of 512 pixels, and ours of 256" in capsys.readouterr().err
    assert not (tmp_path / "short").exists()


def test_what_does_not_fit_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_r3gan(tmp_path / "r3.pkl", 0)
    out = ("--out", str(tmp_path / "bundle"))
    assert main(["import", str(tmp_path / "r3.pkl"), "--as", "stylegan2-ada", *out]) == 2
    assert "does not fit stylegan2-ada: it has no blocks at sides of 4, 8, 16" in capsys.readouterr().err
    states = {"linear.weight": torch.ones(4, 4), "shared.weight": torch.ones(3, 128), "odd.tensor": torch.ones(1)}
    torch.save(states, tmp_path / "G.pth")
    assert main(["import", str(tmp_path / "G.pth"), "--as", "biggan", *out]) == 2
    assert "does not fit biggan: it has 0 blocks" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "none.pkl"), "--as", "biggan", *out]) == 2
    assert main(["import", str(tmp_path / "G.pth"), "--as", "no", *out]) == 2
    assert not (tmp_path / "bundle").exists()


class Evil:
    """Pickled as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def touch(path: str) -> None:
    """Stand for what an attacker would run."""
    Path(path).touch()


def of_protocol(number: int) -> Callable[[Any, Path], bytes]:
    """Return what pickles a call that writes a file."""
    return lambda function, mark: pickle.dumps({"G_ema": Evil(function, str(mark))}, protocol=number)


def lying(size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """Pickle a tensor that says that it is larger than its four bytes."""
    storage = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own pickles have typed storages, which it calls deprecated
        torch.save(torch.zeros(1).storage(), storage, _use_new_zipfile_serialization=False)
    load, rebuild = torch.storage._load_from_bytes, torch._utils._rebuild_tensor_v2
    return pickle.dumps(Evil(rebuild, Evil(load, storage.getvalue()), 0, size, stride, False, {}))


def nested(depth: int) -> bytes:
    """Pickle lists in lists, as a memo of one that holds itself would unfold."""
    return b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b"."


PICKLES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "a function of ours": (lambda mark: of_protocol(4)(touch, mark), "it names "),
    "the same, of protocol 0": (lambda mark: of_protocol(0)(touch, mark), "it names "),
    "eval": (lambda mark: pickle.dumps(Evil(eval, f"open({str(mark)!r}, 'w')")), "it names builtins.eval"),
    "os.system": (lambda mark: f"cposix\nsystem\n(S'touch {mark}'\ntR.".encode(), "it names posix.system"),
    "a class that is called": (lambda mark: f"(S'touch {mark}'\niposix\nsystem\n.".encode(), "the opcode INST"),
    "a persistent id": (lambda mark: b"Pfile\n.", "the opcode PERSID"),
    "a name by way of another": (lambda mark: b"ctorch.nn.modules.os\nsystem\n(S'x'\ntR.", "it holds neither G_ema"),
    "a tensor that lies": (lambda mark: lying((1 << 40,), (1,)), "its storage has 1 numbers"),
    "a tensor that lies by its stride": (lambda mark: lying((1 << 20, 1 << 20), (0, 0)), "its storage has 1 numbers"),
    "a size that is no number": (lambda mark: lying((-1,), (1,)), "a size that is no number"),
    "an array that lies": (
        lambda mark: (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I9\nt"
            b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntRI00\nS'xxxx'\ntb."
        ),
        "says that it is (9,), and has 4 bytes",
    ),
    "no end": (lambda mark: b"\x80\x04]", "it is damaged"),
    "no pickle": (lambda mark: b"words", "it is damaged"),
    "deep lists": (lambda mark: nested(100_000), "does not fit"),
}


@pytest.mark.parametrize("name", PICKLES)
def test_pickles_that_are_no_data_are_refused_and_nothing_runs(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (make, said), mark = PICKLES[name], tmp_path / "ran"
    (tmp_path / "evil.pkl").write_bytes(make(mark))
    arguments = ["import", str(tmp_path / "evil.pkl"), "--as", "stylegan2-ada", "--out", str(tmp_path / "bundle")]
    assert main(arguments) == 2
    assert said in capsys.readouterr().err
    assert not mark.exists(), "it ran"
    assert not (tmp_path / "bundle").exists()


def test_the_machine_has_no_way_to_call_what_a_pickle_names() -> None:
    """Each opcode with any name before it: nothing is called, for the machine holds no function but its builders."""
    called = []
    with modules_named(torch__nn__modules__evil=lambda *rest: called.append(rest)):
        for opcode in pickletools.opcodes:
            data = b"\x80\x04ctorch.nn.modules\nevil\nctorch.nn.modules\nevil\n(I1\nt" + opcode.code.encode("latin1")
            for rest in (b".", b"\x00.", b"1\n.", b"a\nb\n."):
                try:
                    PickleMachine(data + rest).run()
                except BadPickle:
                    continue
    assert not called


def test_archives_that_are_no_torch_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--as", "biggan", "--out", str(tmp_path / "bundle")]
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(50_000_000))
    assert main(["import", str(tmp_path / "bomb.pth"), *arguments]) == 2
    assert "is compressed, which no torch.save does" in capsys.readouterr().err
    torch.save({"linear.weight": Evil(touch, str(tmp_path / "ran"))}, tmp_path / "evil.pth")
    assert main(["import", str(tmp_path / "evil.pth"), *arguments]) == 2
    assert "touch" in capsys.readouterr().err
    torch.save({"linear.weight": torch.zeros(1).expand(1 << 40)}, tmp_path / "large.pth")
    assert main(["import", str(tmp_path / "large.pth"), *arguments]) == 2
    assert "more than its bytes" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "bundle").exists()
