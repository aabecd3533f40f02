"""From the settings that a user has named to those of the run: checked, and with all that is left open decided."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from shards.dataset.index import Index
from trainer.config.config import Config
from trainer.config.dataset import open_data
from trainer.config.labels import settle_labels
from trainer.core.fields import Refused
from trainer.core.file_hash import file_sha256
from trainer.distributed.numerical_environment import best_precision
from trainer.runs.config_loading import check_identity, command_for_new_run, read_config
from trainer.runs.init_from import find_pretrained
from trainer.runs.run_folder import RunFolder


class ResolvedConfig(NamedTuple):
    """Settings that nothing can change any more, and the dataset that they were checked against."""

    config: Config
    dataset: Index


def resolve_config(run: RunFolder, asked: Config, dataset: Index | None = None) -> ResolvedConfig:
    """Check the settings, and decide those that depend on this machine, the data or the run folder.

    Args:
        run: the run folder, which need not exist.
        asked: the settings, as their user has named them.
        dataset: the data, where it is open already.

    Raises:
        Refused: a value is impossible here, or changes the identity of an existing run.
    """
    # Settled once: the run keeps its precision, and its bits, when it is resumed on other hardware.
    config = replace(asked, mixed_precision=best_precision()) if asked.mixed_precision == "auto" else asked
    config = replace(config, data=config.data.resolve()) if config.data else config  # a resume may stand elsewhere
    # Before the data is opened: this is wrong with any data.
    config.check()
    dataset = dataset or open_data(config)
    config = settle_labels(config, dataset)
    config = config.with_intervals(dataset.splits["train"].samples)
    check_length(run, config, dataset)
    stored = read_config(run) if run.config.exists() else None
    config = resolve_init_from(run, config, stored)
    config = config if stored else settle_features(config)
    if stored:
        check_identity(run, stored, config)
    return ResolvedConfig(config, dataset)


def check_length(run: RunFolder, config: Config, dataset: Index) -> None:
    """Refuse to end a run before where it is.

    Raises:
        Refused: it has seen more pictures.
    """
    newest, total = run.newest_checkpoint(), config.images_to_see(dataset.splits["train"].samples)
    if newest and total < newest[0]:
        raise Refused(
            f"{run.path} has seen {newest[0]:,} images already, and is to end at {total:,}: name a larger total, or "
            f"none to leave it as it is; as it was at an earlier checkpoint, it can be sampled with --checkpoint"
        )


def settle_features(config: Config) -> Config:
    """Hash the weights of frozen features that a new run begins with.

    Raises:
        Refused: there is no such file, or nothing that would read it.
    """
    file = config.network.features_file
    if file is None:
        return config
    if config.discriminator != "projected":
        raise Refused("network.features_file is for the discriminator projected")
    if not file.is_file():
        raise Refused(f"network.features_file {file} is no file")
    network = replace(config.network, features_file=file.resolve(), features_hash=file_sha256(file))
    return replace(config, network=network)


def resolve_init_from(run: RunFolder, asked: Config, stored: Config | None) -> Config:
    """Find and hash the weights that a new run starts from.

    A run that exists (`stored`) has a copy of them, so that what has become of their source does not matter.

    Raises:
        Refused: they are not to be had, or not those that the run began with.
    """
    config = replace(asked, init_from=asked.init_from.resolve()) if asked.init_from else asked
    if stored and config.init_from in (None, stored.init_from):
        return replace(config, init_from=stored.init_from, init_hash=stored.init_hash)
    config = replace(config, init_hash=find_pretrained(config).hash if config.init_from else "")
    if stored and config.init_hash != stored.init_hash:
        again = command_for_new_run(stored)
        raise Refused(
            f"{run.path} did not begin with the weights of {asked.init_from}; begin a new run with them: {again}"
        )
    return config
