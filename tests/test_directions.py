"""Directions in closed form (SeFa), the layers that take a code, and files of codes and directions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from tests.zoo_cases import CASES
from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.core.randomness import normal, philox
from trainer.networks import GENERATORS, build_generator, initialise
from trainer.networks.base import Generator, Latent
from trainer.sampling.code_files import encode_codes, encode_directions, read_codes, read_directions
from trainer.sampling.directions import deviations, find_directions, mix, move, parse_layers, principal_directions
from trainer.sampling.sampler import Sampler

BY_GENERATOR = {config.generator: config for config in CASES.values()}


def generator_of(config: Config) -> Generator:
    """Build a small generator, with weights."""
    generator = build_generator(config.generator, config.network)
    initialise(generator, 1, "generator")
    return generator.eval().requires_grad_(False)


def sampler_of(config: Config) -> Sampler:
    """Return a sampler of a small generator with weights."""
    sampler = Sampler(config, torch.device("cpu"))
    sampler.load(dict(generator_of(config).named_parameters()))
    return sampler


def test_the_closed_form_of_a_small_matrix() -> None:
    # A has rows that stretch (3, 4) / 5 by ten, and (-4, 3) / 5 by two: known eigenvectors, and their order.
    first, second = torch.tensor([0.6, 0.8]), torch.tensor([-0.8, 0.6])
    weight = torch.stack([10 * first, 2 * second, torch.zeros(2)])
    torch.testing.assert_close(principal_directions(weight, 2), torch.stack([first, -second]))
    torch.testing.assert_close(principal_directions(-weight, 1), first[None])


@pytest.mark.parametrize("name", GENERATORS)
def test_a_direction_moves_what_the_layers_take_most(name: str) -> None:
    """Steps along the directions change the layers by the square roots of eigenvalues, which fall: no step by more."""
    config = BY_GENERATOR[name]
    generator = generator_of(config)
    layers = generator.code_layers()
    dim = config.network.z_dim
    directions = find_directions(generator, dim)
    torch.testing.assert_close(directions @ directions.T, torch.eye(dim), atol=1e-5, rtol=0)
    stacked = torch.cat(layers)
    change = (stacked @ directions.T).norm(dim=0)
    assert (change.diff() <= 1e-5).all()
    any_step = torch.nn.functional.normalize(normal(philox("steps"), 200, dim))
    assert (stacked @ any_step.T).norm(dim=0).max() <= change[0] * 1.0001
    assert len(layers) == generator.by_layer(torch.zeros(1, *code_of(generator, config).shape[1:])).shape[1]


def code_of(generator: Generator, config: Config, n: int = 4) -> torch.Tensor:
    """Return the codes of n pictures."""
    label = torch.zeros(n, config.network.labels.values, dtype=torch.int64)
    return generator.latent_code(generator.draw(config.network, philox("codes"), label))


@pytest.mark.parametrize("name", ["stylegan2", "biggan"])
def test_layers_of_the_code_are_those_that_take_it(name: str) -> None:
    """What one layer takes changes no other layer: measured at the layers themselves."""
    config = BY_GENERATOR[name]
    generator = generator_of(config)
    latent = generator.draw(config.network, philox("layers"), torch.zeros(2, config.network.labels.values))
    latent = replace(latent, extra={name: value for name, value in latent.extra.items() if name != "z_mix"})
    code = generator.latent_code(latent)
    other = move(code, torch.ones(code.shape[-1]), 1.0)
    count = generator.by_layer(code).shape[1]
    pictures = generator.synthesize(code, latent)
    for k in range(count):
        mixed = mix(generator, code, other, [k])
        changed = (generator.by_layer(mixed) != generator.by_layer(code)).any(2)[0]
        assert changed.tolist() == [i == k for i in range(count)]
        assert (generator.synthesize(mixed, latent) != pictures).any()
    assert torch.equal(mix(generator, code, other, range(count)), other)


def test_stylegan_s_layers_take_what_synthesis_gives_them() -> None:
    """A step of w in a layer changes the styles of just those convolutions whose weights `code_layers` has there."""
    config = BY_GENERATOR["stylegan2"]
    generator = generator_of(config)
    outputs = [len(weight) for weight in generator.code_layers()]
    modulated = generator.modulated()  # type: ignore[operator]
    assert sum(outputs) == sum(layer.affine.weight.shape[0] for layer in modulated)
    first, second, third = (len(modulated[k].affine.weight) for k in range(3))
    assert outputs[:2] == [first, second + third], "4 x 4; its layer to RGB, and the next side's first convolution"
    assert outputs[-1] == len(modulated[-1].affine.weight), "the last layer to RGB stands alone"


def test_codes_move_along_a_direction_in_the_layers_that_are_named() -> None:
    code, direction = torch.zeros(2, 3, 4), torch.tensor([1.0, 0, 0, 0])
    assert move(code, direction, 2.0)[:, :, 0].eq(2).all()
    assert move(code, direction, 2.0, [1])[:, :, 0].tolist() == [[0, 2, 0]] * 2
    assert move(code[:, 0], direction, -1.0, [1]).tolist() == [[-1, 0, 0, 0]] * 2
    assert not code.any(), "the code itself stays"
    z = normal(philox("deviations"), 4000, 4) * torch.tensor([1.0, 2, 3, 4])
    torch.testing.assert_close(deviations(z, torch.eye(4)), torch.tensor([1.0, 2, 3, 4]), rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("text", "count", "layers"),
    [
        ("coarse", 18, [*range(6)]),
        ("middle", 5, [2, 3]),
        ("fine", 5, [4]),
        ("0-2,5", 6, [0, 1, 2, 5]),
        ("5,0-2,1", 6, [0, 1, 2, 5]),
    ],
)
def test_layers_are_read(text: str, count: int, layers: list[int]) -> None:
    assert parse_layers(text, count) == layers


@pytest.mark.parametrize(
    ("text", "message"),
    [("rough", "must be coarse, middle, fine or numbers"), ("3-9", "numbered from 0 to 4"), ("2-1", "from 0 to 4")],
)
def test_other_layers_are_refused(text: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        parse_layers(text, 5)
    with pytest.raises(Refused, match="by their numbers"):
        parse_layers("fine", 2)


def test_directions_that_are_not_there_are_refused() -> None:
    generator = generator_of(BY_GENERATOR["dcgan"])
    with pytest.raises(Refused, match="has 32 directions"):
        find_directions(generator, 33)
    with pytest.raises(Refused, match="numbered from 0 to 0"):
        find_directions(generator, 1, [1])
    generator.code_layers = list  # type: ignore[method-assign]
    with pytest.raises(Refused, match="names no layer"):
        find_directions(generator, 1)


@pytest.mark.parametrize("name", ["dcgan", "stylegan2", "fastgan"])
def test_codes_come_back_from_a_file(name: str, tmp_path: Path) -> None:
    sampler = sampler_of(BY_GENERATOR[name])
    coded = list(sampler.latent_codes(sampler.latent(i, ("file",)) for i in range(3)))
    path = tmp_path / "codes.safetensors"
    path.write_bytes(encode_codes(coded))
    read = read_codes(path, sampler)
    for (code, latent), (again, latent_again) in zip(coded, read, strict=True):
        assert torch.equal(code, again)
        assert torch.equal(latent.label.double(), latent_again.label)
        assert all(torch.equal(value, latent_again.extra[key]) for key, value in latent.extra.items())
    before, after = ([*sampler.synthesize(some)] for some in (coded, read))
    assert (before[0] == after[0]).all()


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    sampler = sampler_of(BY_GENERATOR["stylegan2"])
    path = tmp_path / "codes.safetensors"
    with pytest.raises(Refused, match="cannot be read"):
        read_codes(path, sampler)
    path.write_bytes(b"\x80\x04no safetensors, a pickle")
    with pytest.raises(Refused, match="cannot be read as a safetensors file of codes"):
        read_codes(path, sampler)
    whole = load(encode_codes([*sampler.latent_codes([sampler.latent(0, ("file",))])]))
    for change, message in (
        ({"code": whole["code"][:, :-1].contiguous()}, "'code' has the shape"),
        ({"code": whole["code"] * torch.nan}, "'code' holds NaN"),
        ({"label": whole["label"].repeat(2, 1)}, "different numbers of codes"),
        ({"label": torch.zeros(0, 1, dtype=torch.float64)}, "'label' has the shape"),
        ({"code": whole["code"].long()}, "whole numbers"),
    ):
        path.write_bytes(save(whole | change))
        with pytest.raises(Refused, match=message):
            read_codes(path, sampler)
    path.write_bytes(save({name: tensor for name, tensor in whole.items() if name != "extra.noise_4_0"}))
    with pytest.raises(Refused, match=r"has no tensor 'extra\.noise_4_0'"):
        read_codes(path, sampler)
    directions = principal_directions(normal(philox("file"), 9, 32), 3)
    path.write_bytes(encode_directions(directions))
    assert torch.equal(read_directions(path, 32), directions)
    with pytest.raises(Refused, match=r"rows of \(16,\)"):
        read_directions(path, 16)


def test_a_latent_s_label_may_lie_between_classes() -> None:
    """A vector in place of labels is told as it is: half way between two classes, BigGAN's embeddings are averaged."""
    config = next(c for c in CASES.values() if c.generator == "biggan" and c.network.g_conditional)
    labels = config.network.labels
    told = labels(torch.tensor([[1], [3]]))
    assert torch.equal(labels(told), told)
    generator = generator_of(config)
    z = torch.zeros(2, config.network.z_dim)
    by_class = generator(Latent(z, torch.tensor([[1], [3]])))
    assert torch.equal(by_class, generator(Latent(z, told)))
    between = generator(Latent(z, told.mean(0, keepdim=True).expand(2, -1)))
    assert (between[0] != by_class[0]).any()
