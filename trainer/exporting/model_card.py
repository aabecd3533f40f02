"""README.md of a bundle: a model card in the form of Hugging Face's, with front matter in YAML."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shards.dataset.index import Index
from shards.images.size import format_size
from trainer.config.config import Config
from trainer.config.recipes import RECIPES
from trainer.core.fields import identity_settings
from trainer.runs import journal
from trainer.runs.bundle import BundleConfig
from trainer.runs.bundle_files import CODE, ONNX, PROGRAM, SAMPLES, WEIGHTS
from trainer.runs.run_folder import RunFolder
from trainer.runs.trained_generator import TrainedGenerator

SHOWN_CLASSES = 40
NOT_SHOWN = "init_hash", "recipe"  # settings that say nothing to a reader


def model_card(trained: TrainedGenerator, bundle: BundleConfig, license_name: str, formats: Sequence[str]) -> str:
    """Return the card's text.

    Args:
        trained: the generator.
        bundle: what it is.
        license_name: of the weights.
        formats: that the bundle has.
    """
    weights = trained.weights
    index = weights.trained_on()
    parts = [
        *front_matter(bundle, license_name),
        f"# {bundle.generator}: pictures of {format_size(bundle.network.shape)}",
        "",
        f"![Pictures of the first seeds]({SAMPLES})",
        "",
        *what_it_is(bundle),
        *how_to_use(bundle, formats),
        *data_section(index, bundle),
        *([] if weights.bundle else settings_section(weights.config)),
        *evaluation_section(trained),
        *limits_section(bundle),
    ]
    return "\n".join(parts) + "\n"


def front_matter(bundle: BundleConfig, license_name: str) -> Iterator[str]:
    """Yield the lines that Hugging Face reads; values are quoted as JSON, which YAML takes."""
    tags = ["gan", bundle.generator, "lienzo", *(["safetensors"])]
    yield from ("---", f"license: {json.dumps(license_name)}", "library_name: pytorch")
    yield from ("pipeline_tag: unconditional-image-generation", f"tags: {json.dumps(tags)}", "---", "")


def what_it_is(bundle: BundleConfig) -> Iterator[str]:
    """Yield what the generator is."""
    average = "The weights are a moving average" if bundle.averaged else "The weights are those of the last step"
    recipe = f" by the recipe {bundle.recipe}" if bundle.recipe in RECIPES else ""
    yield f"The generator of a generative adversarial network, trained with lienzo{recipe} until its discriminator had"
    yield f"been shown {bundle.images_seen:,} real pictures. {average}; fingerprint `{bundle.fingerprint[:16]}`."
    yield ""


def how_to_use(bundle: BundleConfig, formats: Sequence[str]) -> Iterator[str]:
    """Yield code that makes pictures, for each format."""
    label = ', label="NAME or index"' if bundle.network.g_condition and not bundle.network.label_columns else ""
    if bundle.network.g_condition and bundle.network.label_columns:
        label = f", label={{{json.dumps(bundle.network.label_names[0])}: …}}"
    yield from ("## How to use it", "", f"With PyTorch, numpy and safetensors, by `{CODE}` and `{WEIGHTS}`:", "")
    yield from ("```python", "import generator  # the file here", "")
    yield f'model = generator.load(".")\npictures = model(seeds=[0, 1]{label}, truncation=None)  # uint8, (n, h, w, c)'
    yield from ("```", "")
    if "onnx" in formats:
        yield f"With any ONNX runtime, by `{ONNX}`: its inputs are z, the label, and what else the network draws, all"
        yield from ("from N(0, 1). An input `truncation` of 1 changes nothing. Pictures are in [-1, 1].", "")
    if "torch-export" in formats:
        yield from (f"With PyTorch alone, by `{PROGRAM}`: `torch.export.load`, with the same inputs.", "")
    yield from (
        "With lienzo, in place of a run:",
        "",
        "```",
        "python -m trainer sample FOLDER --out grid.png --seeds 0-15",
    )
    yield from ("python -m trainer train --data SHARDS --run runs/new --init-from FOLDER", "```", "")


def data_section(index: Index | None, bundle: BundleConfig) -> Iterator[str]:
    """Yield what is known of the training data."""
    yield from ("## Training data", "")
    if index is None:
        yield "The data was not at hand when this card was written."
    else:
        train = index.splits["train"].samples
        rest = sum(split.samples for name, split in index.splits.items() if name != "train")
        held = f", and {rest:,} held out" if rest else ""
        yield f"{train:,} pictures of {format_size(index.size)}{held}; the SHA-256 of its index is `{index.hash[:16]}`."
    if bundle.classes:
        more = f", and {len(bundle.classes) - SHOWN_CLASSES:,} more" if len(bundle.classes) > SHOWN_CLASSES else ""
        names = ", ".join(escaped(name) for name in bundle.classes[:SHOWN_CLASSES])
        yield from ("", f"{len(bundle.classes):,} classes: {names}{more}.")
    if bundle.network.label_columns:
        yield from ("", f"Labels: {', '.join(map(escaped, bundle.network.label_names))}.")
    yield ""


def settings_section(config: Config) -> Iterator[str]:
    """Yield the settings that differ from those of a run without any."""
    default = identity_settings(Config())
    named = {
        name: value
        for name, value in identity_settings(config).items()
        if default[name] != value and name not in NOT_SHOWN
    }
    yield from ("## Settings", "", f"Recipe: {config.recipe}. What differs from lienzo's defaults:", "")
    yield from ("| setting | value |", "|---|---|")
    yield from (f"| {name} | {escaped(str(value))} |" for name, value in sorted(named.items()))
    yield ""


def evaluation_section(trained: TrainedGenerator) -> Iterator[str]:
    """Yield the figures that were measured of this checkpoint, with their intervals."""
    rows = measured(trained)
    yield from ("## Evaluation", "")
    if not rows:
        yield from ("Nothing was measured (`python -m trainer evaluate`).", "")
        return
    yield from ("| figure | value | 95 % interval | real against real | pictures |", "|---|---|---|---|---|")
    for row in rows:
        for column, figure in row["figures"].items():
            floor = figure["floor"]
            yield (
                f"| {column} | {number(figure['value'])} | {number(figure['low'])} to {number(figure['high'])} | "
                f"{number(floor['value']) if floor else '–'} | {figure['count']:,} |"
            )
    yield from ("", "By its names a figure tells its number of pictures and its extractor: only the same compare.", "")


def measured(trained: TrainedGenerator) -> list[Mapping[str, Any]]:
    """Return the rows of evaluations.jsonl that report this checkpoint."""
    checkpoint = trained.weights.checkpoint
    file = RunFolder(trained.weights.folder).evaluations
    if checkpoint is None or not file.exists():
        return []
    name = checkpoint.path.name
    return [row for row in journal.read_rows(file) if row.get("checkpoint") == name and row.get("seed_set") == "report"]


def number(value: object) -> str:
    """Return a number with four significant digits; NaN and infinities are names in JSON."""
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def limits_section(bundle: BundleConfig) -> Iterator[str]:
    """Yield what to expect."""
    yield from ("## Limits", "")
    yield "It makes pictures like those of its training data, with what these show and leave out, and some may be near"
    yield "copies of them (`python -m trainer evaluate RUN --out FOLDER` shows the nearest)."
    if bundle.truncation is not None:
        yield f"\nPictures are truncated at {bundle.truncation:g} unless a call says otherwise."


def escaped(text: str) -> str:
    """Return a text that is no markup."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|!" else letter for letter in text)
