"""Bundles: exported, loaded without lienzo, used as a run, moved, and refused where something is wrong with them."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.drawn_runs import IMAGES, make_run, small_config
from trainer.__main__ import main
from trainer.core.fields import Refused
from trainer.exporting.bundle_folder import standalone_code
from trainer.gan.assembly import create_state
from trainer.networks import GENERATORS
from trainer.networks.spectral_norm import normalised_weights
from trainer.runs.config_loading import read_config
from trainer.runs.init_from import find_pretrained, take_over
from trainer.runs.run_folder import RunFolder
from trainer.runs.trained_generator import SamplingOptions, TrainedGenerator

OPTIONS: dict[str, dict[str, object]] = {
    "sngan": {"g_conditional": True, "classes": 3, "g_spectral_norm": True},
    "biggan": {"g_conditional": True, "classes": 3, "g_spectral_norm": True},
    "stylegan2": {"g_conditional": True, "classes": 3},
    "fastgan": {"g_spectral_norm": True},
}
"""What else a generator is made with, so that labels and spectral normalisation are among the cases."""

ALONE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("trainer", "shards", "command_line", "launcher", "slurm", "jaxtyping", "tyro"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
import json
import numpy as np
for folder, out, calls in json.load(open(sys.argv[1])):
    sys.path.insert(0, folder)
    import generator
    model = generator.load(folder)
    np.savez(out, *[model(**call) for call in calls])
    sys.path.remove(folder)
    del sys.modules["generator"]
"""
"""A program that loads bundles where lienzo and what it needs besides cannot be imported."""

SEEDS = [0, 5]


class Made(dict[str, Path]):
    """Folders by the name of a generator, each made when it is asked for."""

    def __init__(self, make: Callable[[str], Path]) -> None:
        self.make = make

    def __missing__(self, name: str) -> Path:
        self[name] = self.make(name)
        return self[name]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A run of each generator."""
    folder = tmp_path_factory.mktemp("runs")
    return Made(lambda name: make_run(folder / name, small_config(name, OPTIONS.get(name, {}))))


@pytest.fixture(scope="module")
def bundles(runs: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A bundle of each, with its discriminator."""
    folder = tmp_path_factory.mktemp("bundles")

    def make(name: str) -> Path:
        options = ("--discriminator", "--license", "cc0-1.0")
        assert main(["export", str(runs[name]), "--out", str(folder / name), *options]) == 0
        return folder / name

    return Made(make)


def load_alone(calls: list[tuple[Path, Path, list[dict[str, object]]]], folder: Path) -> None:
    """Let a process without lienzo load bundles, call each, and write the pictures into a file."""
    (folder / "alone.py").write_text(ALONE)
    (folder / "calls.json").write_text(json.dumps([[str(a), str(b), c] for a, b, c in calls]))
    command = [sys.executable, "-I", str(folder / "alone.py"), str(folder / "calls.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False, timeout=240)
    assert done.returncode == 0, done.stderr


def pictures_of(folder: Path, options: SamplingOptions) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return what `sample --seeds` generates."""
    return np.concatenate([*TrainedGenerator(folder, options).seeded(SEEDS)])


def test_every_network_makes_the_same_pictures_without_lienzo(runs: Made, bundles: Made, tmp_path: Path) -> None:
    """To the bit: as it is, truncated, and truncated no more; of a class where there are any."""
    calls = []
    for name in GENERATORS:
        classes = {"label": "1"} if "classes" in OPTIONS.get(name, {}) else {}
        asked = [{"seeds": SEEDS, **classes, "truncation": 0.7}, {"seeds": SEEDS}, {"seeds": SEEDS, **classes}]
        calls.append((bundles[name], tmp_path / f"{name}.npz", asked))
    load_alone(calls, tmp_path)  # type: ignore[arg-type]
    for name in GENERATORS:
        run, label = runs[name], "1" if "classes" in OPTIONS.get(name, {}) else None
        truncated, plain, of_class = np.load(tmp_path / f"{name}.npz").values()
        assert plain.std() > 5, f"{name} is grey"
        assert (plain == pictures_of(run, SamplingOptions())).all(), name
        assert (of_class == pictures_of(run, SamplingOptions(label=label))).all(), name
        assert (truncated == pictures_of(run, SamplingOptions(label=label, truncation=0.7))).all(), name
        assert (truncated != of_class).any(), name


def test_generator_py_is_readable_and_says_nothing_of_training() -> None:
    for name in GENERATORS:
        code = standalone_code(name)
        assert "import jaxtyping" not in code
        assert not [line for line in code.splitlines() if line.startswith(("from trainer", "import trainer"))]
        for word in ("Discriminator(", "initial_value", "def problem", "checkpointed", "SpectralNorm"):
            assert word not in code, f"{name}: {word}"
        assert "# The remainder of -1 is `classes`" in code, "comments stay"
        names = [name for node in ast.parse(code).body for name in names_of(node)]
        assert len(names) == len({*names}), sorted(name for name in names if names.count(name) > 1)


def names_of(node: ast.stmt) -> list[str]:
    """Return the names that a statement at the top of a module gives a meaning to."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [one.asname or one.name for one in node.names]
    return [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []


def test_a_bundle_is_used_as_a_run(runs: Made, bundles: Made, tmp_path: Path) -> None:
    for name in ("dcgan", "stylegan2", "biggan"):
        for kind, folder in (("run", runs[name]), ("bundle", bundles[name])):
            out = ("--out", str(tmp_path / f"{name}-{kind}.png"))
            assert main(["sample", str(folder), *out, "--seeds", "0-8", "--truncation", "0.8"]) == 0
            film = ("--out", str(tmp_path / f"{name}-{kind}.webp"))
            assert main(["interpolate", str(folder), *film, "--seeds", "1,4", "--steps", "3"]) == 0
        for suffix in ("png", "webp"):
            one, other = ((tmp_path / f"{name}-{kind}.{suffix}").read_bytes() for kind in ("run", "bundle"))
            assert one == other, (name, suffix)
    assert TrainedGenerator(bundles["dcgan"], SamplingOptions()).images_seen == IMAGES


def test_what_an_export_names_is_the_bundles_default(runs: Made, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    options = ("--truncation", "0.6", "--class", "2")
    assert main(["export", str(runs["stylegan2"]), "--out", str(out), *options]) == 0
    wanted = pictures_of(runs["stylegan2"], SamplingOptions(label="2", truncation=0.6))
    assert (pictures_of(out, SamplingOptions()) == wanted).all()
    load_alone([(out, tmp_path / "made.npz", [{"seeds": SEEDS}])], tmp_path)
    assert (np.load(tmp_path / "made.npz")["arr_0"] == wanted).all()
    raw = tmp_path / "raw"
    assert main(["export", str(runs["stylegan2"]), "--out", str(raw), "--no-ema"]) == 0
    assert (pictures_of(raw, SamplingOptions()) == pictures_of(runs["stylegan2"], SamplingOptions(ema=False))).all()
    assert (pictures_of(raw, SamplingOptions()) != pictures_of(runs["stylegan2"], SamplingOptions())).any()
    again = tmp_path / "again"  # a bundle of a bundle
    assert main(["export", str(out), "--out", str(again)]) == 0
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_graph_formats_are_asked_for_by_name(runs: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bundle"
    assert main(["export", str(runs["mlp"]), "--out", str(out), "--format", "onnx", "torch-export"]) == 0
    said = capsys.readouterr().out
    assert "generator.onnx: opset 18, inputs z, label, any number of pictures; onnxruntime differs by" in said
    assert "generator.pt2: torch" in said
    assert {"generator.onnx", "generator.pt2", "generator.py"} <= {path.name for path in out.iterdir()}
    assert "With any ONNX runtime, by `generator.onnx`" in (out / "README.md").read_text()


def test_the_card_and_the_config(bundles: Made) -> None:
    card = (bundles["biggan"] / "README.md").read_text()
    assert card.startswith('---\nlicense: "cc0-1.0"\n')
    assert "python -m trainer sample" in card
    config = json.loads((bundles["biggan"] / "config.json").read_text())
    assert (config["bundle"], config["generator"], config["images_seen"]) == (1, "biggan", IMAGES)
    named = load_file(bundles["biggan"] / "model.safetensors")
    assert not [name for name in named if "parametrizations" in name], "spectral normalisation is carried out"
    assert "blocks.0.conv1.weight" in named
    manifest = json.loads((bundles["biggan"] / "manifest.json").read_text())["files"]
    assert set(manifest) == {path.name for path in bundles["biggan"].glob("*.*")} - {"manifest.json"}
    assert "mean_style" in load_file(bundles["stylegan2"] / "model.safetensors")


def test_an_evaluation_of_a_bundle_is_that_of_its_run(
    runs: Made, bundles: Made, shards32: Path, tmp_path: Path
) -> None:
    figures = []
    for name, folder in (("run", runs["dcgan"]), ("bundle", bundles["dcgan"])):
        file = tmp_path / f"{name}.json"
        options = ("--against", str(shards32), "--metrics", "kid", "--num-samples", "24", "--json", str(file))
        assert main(["evaluate", str(folder), *options, "--processes", "1", "--cache", str(tmp_path / name)]) == 0
        figures.append(json.loads(file.read_text())["figures"])
    assert figures[0] == figures[1]


def test_a_new_run_starts_from_both_networks_of_a_bundle(runs: Made, bundles: Made) -> None:
    """Spectral normalisation, which was carried out, is of largest singular value one: the networks are the same."""
    theirs = read_config(RunFolder(runs["biggan"]))
    config = replace(theirs, network=replace(theirs.network, d_spectral_norm=True), init_from=bundles["biggan"])
    found = find_pretrained(config)
    names = {"first.parametrizations.weight.original", "blocks.0.norm1.normalise.running_mean", "norm.weight"}
    assert {f"generator.{name}" for name in names} <= found.weights.keys()
    assert not [name for name in found.left if not name.startswith("discriminator.")], found.left
    assert [name for name in found.weights if name.startswith("discriminator.")]
    state = create_state(config, "data", torch.device("cpu"))
    take_over(state, found, config.seed)
    stored = load_file(bundles["biggan"] / "model.safetensors")
    for norm, weight in normalised_weights(state.generator):
        assert 0.99 < torch.linalg.matrix_norm(norm.matrix(weight), 2) < 1.05, "by power iteration"
    assert torch.equal(state.generator.state_dict()["norm.running_var"], stored["norm.running_var"])
    with pytest.raises(Refused, match="without progress: name a run, or use --init-state weights"):
        find_pretrained(replace(config, init_state="all"))


def test_a_bundle_is_pushed_and_pulled(bundles: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, there, back = tmp_path / "mine", tmp_path / "there", tmp_path / "back"
    shutil.copytree(bundles["mlp"], bundle)
    (bundle / "README.md").write_text("edited\n")
    assert main(["push", str(bundle), str(there)]) == 0
    assert main(["pull", str(there), str(back)]) == 0
    assert (back / "README.md").read_text() == "edited\n"
    assert (back / "model.safetensors").read_bytes() == (bundle / "model.safetensors").read_bytes()
    assert (pictures_of(back, SamplingOptions()) == pictures_of(bundle, SamplingOptions())).all()
    for change, said in (
        (lambda folder: (folder / "config.json").write_text("{}"), "config.json has 2 bytes"),
        (lambda folder: flip_byte(folder / "model.safetensors"), "model.safetensors is not what manifest.json says"),
        (lambda folder: (folder / "manifest.json").unlink(), "there is no manifest.json"),
        (lambda folder: rename_in_manifest(folder, "../evil"), "names '../evil', which is no file of a bundle"),
    ):
        shutil.rmtree(there)
        assert main(["push", str(bundle), str(there)]) == 0
        change(there)
        assert main(["pull", str(there), str(tmp_path / "new")]) == 2
        assert said in capsys.readouterr().err
        assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "mine", "there"], "nothing is left"
    assert main(["push", str(tmp_path), str(there)]) == 2
    assert "is no bundle: make one with python -m trainer export" in capsys.readouterr().err
    flip_byte(bundle / "model.safetensors")
    assert main(["push", str(bundle), str(there)]) == 2
    assert "is damaged, or was changed; get the bundle again" in capsys.readouterr().err
    (bundle / "manifest.json").unlink()
    assert main(["push", str(bundle), str(there)]) == 2
    assert "make the bundle again with python -m trainer export" in capsys.readouterr().err


def flip_byte(path: Path) -> None:
    """Change the last byte of a file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def rename_in_manifest(folder: Path, name: str) -> None:
    """Let a manifest name a file elsewhere."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = manifest["files"].pop("config.json")
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_what_a_bundle_cannot_do_is_refused(
    runs: Made, bundles: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, bundle, out = str(runs["mlp"]), str(bundles["mlp"]), ("--out", str(tmp_path / "new"))
    small = tmp_path / "small"
    assert main(["export", run, "--out", str(small)]) == 0
    for arguments, said in (
        (["export", run, "--out", bundle], "is there already: name another folder, or remove it"),
        (["export", str(small), *out, "--discriminator"], "is a bundle that holds none: leave it out"),
        (["export", bundle, *out, "--no-ema"], "is a bundle, which holds one set of weights: leave it out"),
        (["sample", bundle, "--out", str(tmp_path / "a.png"), "--checkpoint", "64"], "leave --checkpoint out"),
        (["train", "--run", bundle], "is a bundle of a trained generator, and no run: start one with --init-from"),
        (["export", str(tmp_path / "none"), *out], "holds no run"),
    ):
        assert main(arguments) == 2
        assert said in capsys.readouterr().err
    monkeypatch.setattr("trainer.exporting.onnx_file.PACKAGES", ("onnx", "no_such_package"))
    assert main(["export", run, *out, "--format", "onnx"]) == 2
    assert "onnx needs no_such_package: pip install 'lienzo[onnx]'" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a later format": (lambda config: config.update(bundle=9), "does not read: update lienzo"),
    "no such network": (lambda config: config.update(generator="no"), "there is no generator 'no'"),
    "a setting too many": (lambda config: config["network"].update(evil=1), "there is no setting 'evil'"),
    "another type": (lambda config: config.update(seed="0"), "seed must be a whole number"),
    "a huge network": (lambda config: config["network"].update(g_channels=65536), "does not fit its config.json"),
    "beyond its limits": (lambda config: config["network"].update(z_dim=1 << 40), "network.z_dim must be"),
    "no texts": (lambda config: config.update(classes=[1]), "classes must be a list of texts"),
    "a name missing": (lambda config: config.pop("network"), "is damaged"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_config_from_a_stranger_is_refused(
    change: str, bundles: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, (edit, said) = tmp_path / "bundle", CHANGES[change]
    shutil.copytree(bundles["mlp"], folder)
    config = json.loads((folder / "config.json").read_text())
    edit(config)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "manifest.json").unlink()  # a stranger would have made it fit
    assert main(["sample", str(folder), "--out", str(tmp_path / "a.png")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()


def test_tensors_from_a_stranger_are_refused(bundles: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundles["mlp"], folder)
    tensors = load_file(folder / "model.safetensors")
    flip_byte(folder / "model.safetensors")
    assert main(["sample", str(folder), "--out", str(tmp_path / "a.png")]) == 2
    assert "it is damaged, or was changed; get the bundle again" in capsys.readouterr().err
    (folder / "manifest.json").unlink()
    for name, other in (("last.weight", tensors["last.weight"].int()), ("more", torch.zeros(1))):
        save_file(tensors | {name: other}, folder / "model.safetensors")
        assert main(["sample", str(folder), "--out", str(tmp_path / "a.png")]) == 2
        assert name in capsys.readouterr().err
