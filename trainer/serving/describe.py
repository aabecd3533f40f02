"""What the page must know of a run to offer its controls."""

from __future__ import annotations

from trainer.serving.catalogue import ServedRun
from trainer.serving.queries import CheckpointAnswer, LabelColumn, RunAnswer
from trainer.serving.served import ServedGenerator


def describe_run(run: ServedRun, served: ServedGenerator) -> RunAnswer:
    """Describe a run by its newest checkpoint's generator, and its checkpoints as they are now."""
    known = served.trained.weights.known
    height, width = served.network.shape
    return RunAnswer(
        name=run.name,
        newest=run.newest,
        checkpoints=[CheckpointAnswer(name=name, images_seen=seen) for name, seen in run.checkpoints()],
        generator=served.sampler.config.generator,
        height=height,
        width=width,
        classes=served.classes,
        labels=[
            LabelColumn(name=column.name, kind=column.kind, length=column.length, classes=list(column.classes))
            for column in (known.columns if known else ())
        ],
        truncation="w" if served.linear else "z",
        layers=served.layers,
        directions=len(served.directions),
    )
