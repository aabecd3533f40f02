"""What networks are told of a picture: columns of labels, from the shards to networks, samples and figures."""

from __future__ import annotations

import json
import math
import shutil
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from shards.__main__ import main as build_main
from shards.dataset import remote_table
from shards.dataset.cache_settings import CacheSettings
from shards.dataset.index import DataError, Index
from shards.dataset.labels import LabelReader
from shards.dataset.stream import Reader
from shards.storage.place import parse_place
from tests.labelled_shards import SOURCE, build_labelled, number, table_rows
from tests.s3_server import serve_bucket
from tests.zoo_cases import small
from trainer.config.config import Config
from trainer.config.dataset import open_data
from trainer.config.labels import settle_labels
from trainer.core.fields import Refused, from_json, hashed_settings, identity_hash, to_json
from trainer.core.randomness import philox
from trainer.networks import DISCRIMINATORS, GENERATORS, build_discriminator, build_generator
from trainer.networks.labels import LabelKind, LabelLayout, describe_kind, parse_kinds
from trainer.networks.network_settings import NetworkSettings
from trainer.runs.run_labels import parse_value

NAMES = ("style", "genre", "year")
KINDS = "9 classes, 3 classes, mean 1800.0 spread 120.0"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_labelled(tmp_path_factory.mktemp("labelled"), "--holdout", "0.1")


def names_of(index: Index) -> list[str]:
    """Return the names of the pictures, in the order of the table."""
    found = []
    for shard in (shard for split in index.splits.values() for shard in split.shards):
        with tarfile.open(index.folder / shard.name) as tar:
            texts = [tar.extractfile(member) for member in tar if member.name.endswith(".json")]
            found += [json.load(text)["file"] for text in texts if text]
    return found


def test_labels_are_those_of_the_table(labelled: Path) -> None:
    """In any order of the columns, wherever they are stored; also those of what replaces a damaged picture."""
    index, table = Index.open(labelled), table_rows(labelled.parent)
    names = names_of(index)
    reader = LabelReader(index, ("year", "style", "genre"))
    classes = {column.name: column.classes for column in reader.columns}
    rows = np.random.default_rng(0).permutation(len(names))
    for place, (year, style, genre) in zip(rows.tolist(), reader(rows).tolist(), strict=True):
        row = table[names[place]]
        assert year == number(row["year"]) or (math.isnan(year) and not row["year"])
        for value, column in ((style, "style"), (genre, "genre")):
            assert row[column] == (classes[column][int(value)] if value >= 0 else "")
    read = Reader(index, "train", lambda *_: None, ("genre", "year"))
    read.damaged.add(7)
    samples = read(np.array([3, 7, 1]))
    assert samples.used.tolist() == [3, 8, 1]
    assert np.array_equal(samples.labels, LabelReader(index, ("genre", "year"))(samples.used), equal_nan=True)
    assert np.array_equal(
        Reader(index, "train", lambda *_: None)(rows[:9] % 400).labels[:, 0], index.table["label"][rows[:9] % 400]
    )


def test_labels_come_from_a_bucket_whole_and_in_pages(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.array([300, 2, 2, 71, 120])
    local = LabelReader(Index.open(labelled), NAMES)(rows)
    with serve_bucket(tmp_path / "buckets") as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        shutil.copytree(labelled, bucket.root / "set")
        for copied in (1 << 30, 1000):
            monkeypatch.setattr(remote_table, "COPIED", copied)
            monkeypatch.setattr(remote_table, "PAGE_ROWS", 50)
            index = Index.open(parse_place(f"{bucket.url}/set"), CacheSettings(tmp_path / "cache"))
            reader = LabelReader(index, NAMES)
            assert isinstance(reader.tables[1][0], remote_table.RemoteTable) == (copied == 1000)
            assert np.array_equal(reader(rows), local, equal_nan=True)
            for table in (index.table, reader.tables[1][0]):
                if isinstance(table, remote_table.RemoteTable):
                    table.threads.close()


def test_damaged_labels_are_refused(labelled: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(labelled, tmp_path / "copy")
    content = bytearray((copy / "labels.npy").read_bytes())
    content[-16:-12] = np.int32(99).tobytes()  # the last picture's genre, of which there are three
    (copy / "labels.npy").write_bytes(content)
    reader, last = LabelReader(Index.open(copy), NAMES), len(Index.open(copy).table) - 1
    reader(np.arange(last))
    with pytest.raises(DataError, match=r"labels\.npy is damaged in 'genre'"):
        reader(np.array([last]))
    (copy / "labels.npy").write_bytes(content[:-40])
    with pytest.raises(DataError, match=r"labels\.npy cannot be read"):
        LabelReader(Index.open(copy), NAMES)
    values = json.loads((copy / "index.json").read_text())
    for change in ({"columns": [{"name": "genre"}]}, {"sha256": "../secret"}, {"columns": None}):
        (copy / "index.json").write_text(json.dumps(values | {"attributes": values["attributes"] | change}))
        with pytest.raises(DataError, match=r"index\.json is damaged"):
            LabelReader(Index.open(copy), NAMES)


def test_a_layout_is_one_vector() -> None:
    """Classes as one-hot, numbers in units of their spread, vectors as they are, each with an entry for unknown."""
    layout = LabelLayout((LabelKind(3), LabelKind(scaled=(1800.0, 50.0)), LabelKind(2), LabelKind(length=2)))
    nan = math.nan
    label = torch.tensor([[2, 1850, -1, 0.5, -7], [-1, nan, 0, nan, nan]], dtype=torch.float64)
    assert layout(label).tolist() == [
        [0, 0, 1, 0, 1, 0, 0, 0, 1, 0.5, -7, 0],
        [0, 0, 0, 1, 0, 1, 1, 0, 0, 0, 0, 1],
    ]
    assert (layout.dim, layout.values, layout.classes) == (12, 5, [3, 2])
    one = LabelLayout((LabelKind(3),))
    labels = torch.tensor([0, 2, -1, 1])
    assert torch.equal(one(labels), F.one_hot(labels.remainder(4), 4).float())
    assert torch.equal(one(labels), one(labels.double()[:, None]))
    assert parse_kinds(", ".join(map(describe_kind, layout.kinds))) == layout


def config_of(data: Path, columns: str, **network: Any) -> Config:
    settings: dict[str, Any] = {"g_conditional": True, "d_head": "projection", "size": 32} | network
    return Config(data=data, network=NetworkSettings(label_columns=columns, **settings))


def test_settings_say_what_the_data_has(labelled: Path) -> None:
    index, table = Index.open(labelled), table_rows(labelled.parent)
    network = settle_labels(config_of(labelled, 'year, "artist" ,style'), index).network
    kinds = parse_kinds(network.label_kinds).kinds
    assert network.label_names == ("year", "artist", "style")
    assert kinds[1:] == (LabelKind(4), LabelKind(9))
    training = names_of(index)[: index.splits["train"].samples]
    years = np.array([number(table[name]["year"]) for name in training])
    assert kinds[0].scaled == pytest.approx((np.nanmean(years), np.nanstd(years)), rel=1e-12)


def test_runs_on_the_label_of_the_table_keep_their_identity(labelled: Path) -> None:
    config = settle_labels(config_of(labelled, ""), Index.open(labelled))
    assert config.network.classes == 9
    assert not [name for name in hashed_settings(config) if "label" in name]
    stored = to_json(config)
    del stored["network"]["label_columns"], stored["network"]["label_kinds"]
    assert from_json(Config, stored, "old") == config
    other = settle_labels(config_of(labelled, "style"), Index.open(labelled))
    assert identity_hash(other) != identity_hash(config)


def settle(config: Config) -> Config:
    config.check()
    return settle_labels(config, open_data(config))


REFUSALS: dict[str, dict[str, Any]] = {
    r"has no labels 'gnre'; there are 'style', 'genre', 'artist', 'year'": {"columns": "gnre"},
    "does nothing without --network.g-conditional": {"columns": "genre", "g_conditional": False, "d_head": "plain"},
    "must name columns, each once": {"columns": "genre,,year"},
    "must name columns, each once, but is 'genre,genre'": {"columns": "genre,genre"},
    "network.classes is of the label in the table": {"columns": "genre", "classes": 3},
    "follow from network.label_columns": {"columns": "", "label_kinds": "3 classes"},
    "'year' is a number: use --network.d-head projection": {"columns": "genre,year", "d_head": "classifier"},
}


@pytest.mark.parametrize("message", REFUSALS)
def test_labels_that_cannot_be_told_are_refused(message: str, labelled: Path) -> None:
    config = config_of(labelled, **REFUSALS[message])
    weighted = replace(config.penalties.classes_d, weight=1.0 if config.network.d_head == "classifier" else 0.0)
    config = replace(config, penalties=replace(config.penalties, classes_d=weighted))
    with pytest.raises(Refused, match=message):
        settle(config)


def test_can_takes_one_column(labelled: Path) -> None:
    config = config_of(labelled, "style,genre", d_head="classifier", g_conditional=False)
    config = replace(config, penalties=replace(config.penalties, style=replace(config.penalties.style, weight=1.0)))
    with pytest.raises(Refused, match=r"penalties\.style is about one set of classes"):
        config.check()
    replace(config, network=replace(config.network, label_columns="genre")).check()


TOLD = torch.tensor([[4.0, 1.0, 1850.0]], dtype=torch.float64)
OTHERS = ([5.0, 1.0, 1850.0], [-1.0, 1.0, 1850.0], [4.0, 2.0, 1850.0], [4.0, 1.0, 1700.0], [4.0, 1.0, math.nan])


@pytest.mark.parametrize("kind", ["generator", "discriminator"])
@pytest.mark.parametrize("name", sorted({*GENERATORS} & {*DISCRIMINATORS}))
def test_every_network_is_told_every_label(kind: str, name: str) -> None:
    """With any weights, a picture and its logit depend on each label, and on its being unknown."""
    settings = replace(
        small(Config()).network, label_columns="a,b,c", label_kinds=KINDS, g_conditional=True, d_head="projection"
    )
    g = build_generator("dcgan" if kind == "discriminator" else name, settings).double()
    d = build_discriminator("dcgan" if kind == "generator" else name, settings).double()
    for place, parameter in enumerate([*g.parameters(), *d.parameters()]):
        drawn = torch.from_numpy(philox("told", place).normal(0, 0.3, tuple(parameter.shape)))
        parameter.data = parameter.data + drawn / parameter.shape[1:].numel() ** 0.5
    latent = g.draw(settings, philox("latent"), TOLD.expand(4, -1)).map(torch.Tensor.double)
    fake = g(latent)
    for other in OTHERS:
        changed = torch.tensor([other], dtype=torch.float64).expand(4, -1)
        if kind == "generator":
            assert not torch.equal(g(replace(latent, label=changed)), fake), other
        else:
            assert not torch.equal(d(fake, changed).logits, d(fake, latent.label).logits), other


def test_vectors_of_stylegan_are_told(tmp_path: Path, labelled: Path) -> None:
    """They are no classes: a run that uses labels must name them."""
    index = Index.open(labelled)
    names = names_of(index)[:60]
    source = tmp_path / "source"
    with zipfile.ZipFile(SOURCE) as archive:
        archive.extractall(source, names)
    vectors = {name: [place / 4, -2.0] for place, name in enumerate(names)}
    (source / "dataset.json").write_text(json.dumps({"labels": [[name, vectors[name]] for name in names[:50]]}))
    options = ("--size", "32", "--labels", "dataset.json", "--workers", "1", "--holdout", "0")
    assert build_main(["build", str(source), "--out", str(tmp_path / "data"), *options]) == 0
    index = Index.open(tmp_path / "data")
    read = LabelReader(index, ("label",))(np.arange(60)).tolist()
    known = {name: vector for name, vector in zip(names_of(index), read, strict=True) if not math.isnan(vector[0])}
    assert known == {name: vectors[name] for name in names[:50]}
    with pytest.raises(
        Refused, match=r"have no classes, but 'label', a vector: name it with --network\.label-columns label"
    ):
        settle(config_of(index.folder, ""))
    settled = settle(config_of(index.folder, "label"))
    assert (settled.network.label_kinds, settled.network.g_condition) == ("2 values", 3)
    assert parse_value(LabelReader(index, ("label",)).columns[0], "0.5,-2") == [0.5, -2.0]
    with pytest.raises(Refused, match="label must be 2 numbers, with commas between them, but is '1'"):
        parse_value(LabelReader(index, ("label",)).columns[0], "1")
