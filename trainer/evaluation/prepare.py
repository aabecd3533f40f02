"""From a command line to a plan: everything that can be wrong with one is found here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trainer.core.fields import Refused
from trainer.core.registry import choose
from trainer.evaluation.arguments import Evaluate, command_line
from trainer.evaluation.best_checkpoint import best_checkpoint
from trainer.evaluation.extraction import ExtractionTask
from trainer.evaluation.figures import PICTURES
from trainer.evaluation.generated_source import Painted
from trainer.evaluation.plan import EvaluationPlan, none_left
from trainer.evaluation.reference_conventions import like
from trainer.evaluation.source import OF_FAKES, Folder, ImageSource, Labels, Rows, Shards, open_fixed
from trainer.extractors import DEFAULT, EXTRACTORS, Extractor, Labelled, Options
from trainer.extractors.base import Missing
from trainer.extractors.conventions import CONVENTIONS, Convention
from trainer.metrics import METRICS, Metric
from trainer.runs.checkpoint import newest_or_refuse
from trainer.runs.config_loading import read_config
from trainer.runs.run_folder import RunFolder
from trainer.runs.trained_generator import named_checkpoint
from trainer.sampling.image_files import check_parent
from trainer.sampling.sampler import Images

LEAST = 2  # pictures of each side


def run_of(path: Path) -> RunFolder | None:
    """Return the run in a folder, if it holds one."""
    return RunFolder(path) if RunFolder(path).config.exists() else None


def settled(args: Evaluate) -> Evaluate:
    """Return the same with the checkpoint by its name, for all processes: while a run trains, the newest one changes.

    Raises:
        Refused: there is none, or the arguments do not fit together.
    """
    args.check()
    args = replace(args, cache=args.cache.expanduser())
    run = run_of(args.subject)
    if run is None:
        if args.checkpoint is not None:
            raise Refused(f"--checkpoint is of a run, and {args.subject} holds none")
        return args
    asked = best_checkpoint(run) if args.checkpoint == "best" else args.checkpoint
    found = newest_or_refuse(run) if asked is None else named_checkpoint(run, asked)
    return replace(args, checkpoint=found.path.name)


def sources(args: Evaluate, run: RunFolder | None) -> tuple[ImageSource, Shards | Folder]:
    """Open the pictures that are measured, and the real ones.

    Raises:
        Refused: there are none, or their sizes or their classes do not fit together.
    """
    if run is None:
        if args.against is None:
            raise Refused(f"{args.subject} holds no run, so name the real pictures: --against DATA or a folder")
        real = open_fixed(args.against, None)
        return open_fixed(args.subject, real.size, OF_FAKES), real
    config = read_config(run)
    against = args.against or config.data
    if against is None or not config.network.size:
        raise Refused(f"{args.subject} was not trained on shards of pictures: there is nothing to compare with")
    checkpoint = named_checkpoint(run, str(args.checkpoint))
    real = open_fixed(against, config.network.size)
    return Painted(run.path, config, checkpoint, args.seed_set, real), real


def prepare(args: Evaluate, classifier: Missing = "learn") -> EvaluationPlan:
    """Return what the evaluation compares, ready to be computed.

    Args:
        args: with the checkpoint by its name.
        classifier: what is done about one that is wanted and not there, as in `Options`.

    Raises:
        Refused: it cannot be done.
    """
    run = run_of(args.subject)
    metrics = [choose(METRICS, name, "metric") for name in dict.fromkeys(args.metrics)]
    convention = choose(CONVENTIONS, args.like, "convention") if args.like else None
    if args.num_samples < LEAST:
        raise Refused(f"--num-samples must be at least {LEAST}, but is {args.num_samples}")
    for file in (args.json, args.out):
        if file:
            check_parent(file)
    fake, real = sources(args, run)
    wanted = {need for metric in metrics for need in metric.needs}
    held_out = real.held_out() if "held out" in wanted else None
    most = args.num_samples if convention else real.count  # other programs compare any number of fakes with all reals
    count = min(args.num_samples, fake.count or args.num_samples, most)
    if min(count, real.count) < LEAST:
        raise Refused(f"one picture is too few: {fake.name} or {real.name} has no more")
    extractor = open_extractor(args, convention, real, classifier) if wanted & {"features", "probabilities"} else None
    missing = missing_needs(fake, real, held_out, extractor)
    left_out = {metric.name: missing[need] for metric in metrics for need in sorted(metric.needs) if need in missing}
    if convention:
        unknown = [metric.name for metric in metrics if not like(metric, convention)]
        left_out |= dict.fromkeys(unknown, f"{args.like} has no such figure")
    measured = tuple(as_asked(metric, convention) for metric in metrics if metric.name not in left_out)
    if not measured:
        raise Refused(none_left(left_out))
    whole = any(metric.against == "all" for metric in measured)
    reals = real.count if whole else min(2 * count, real.count)  # the second half of them is for the floor
    kept, cache = PICTURES if "pictures" in wanted else 0, args.cache.expanduser()
    return EvaluationPlan(
        run,
        facts(args, fake, real, count, extractor),
        measured,
        left_out,
        "/".join(filter(None, (extractor.label if extractor else "", args.like and f"like-{args.like}"))),
        ExtractionTask(
            fake, extractor, count, min(kept, count), cache, repr(command_line(replace(args, processes=None)))
        ),
        ExtractionTask(real, extractor, reals, min(2 * kept, reals), cache),
        ExtractionTask(held_out, extractor, min(count, held_out.count), 0, cache) if held_out else None,
    )


def as_asked(metric: Metric, convention: Convention | None) -> Metric:
    """Return a metric by its own definition, or as a convention that has it does."""
    return (like(metric, convention) if convention else None) or metric


def open_extractor(
    args: Evaluate, convention: Convention | None, real: Shards | Folder, classifier: Missing
) -> Extractor:
    """Open the extractor that is asked for: by its name, or by the convention's.

    Raises:
        Refused: its file is missing, or it learns classes and the data has none.
    """
    if convention and args.extractor not in (None, convention.extractor):
        raise Refused(f"--like {args.like} is with {convention.extractor}: leave --extractor {args.extractor} out")
    name = convention.extractor if convention else args.extractor or DEFAULT
    resize = convention.resize if convention else None
    opener = choose(EXTRACTORS, name, "extractor")
    return opener(Options(args.weights, resize, labelled(real), args.cache.expanduser(), classifier))


def labelled(real: Shards | Folder) -> Labelled:
    """Return the real pictures with their classes, for a classifier of them."""

    def read(rows: Rows) -> tuple[Images, Labels]:
        labels = real.labels(rows)
        assert labels is not None
        return real.pictures(rows), labels

    return Labelled(real.name, real.key, real.classes, real.count, read)


def missing_needs(
    fake: ImageSource, real: ImageSource, held_out: ImageSource | None, extractor: Extractor | None
) -> dict[str, str]:
    """Return what metrics may need and is not to be had here, with the reason in words."""
    missing = {}
    if held_out is None:
        missing["held out"] = f"{real.name} has no held-out share; shards build --holdout makes one"
    if not (fake.classes and real.classes):
        unlabelled = real if fake.classes else fake
        missing["labels"] = f"the pictures of {unlabelled.name} have no classes"
    elif fake.classes != real.classes:
        missing["labels"] = f"{fake.name} and {real.name} have different classes, or the same in another order"
    if extractor and not extractor.classes:
        missing["probabilities"] = f"{extractor.name} tells no classes; --extractor classifier does"
    return missing


def facts(
    args: Evaluate, fake: ImageSource, real: ImageSource, count: int, extractor: Extractor | None
) -> dict[str, object]:
    """Return what the figures hold for."""
    return {
        "images_seen": fake.checkpoint.images_seen if isinstance(fake, Painted) else None,
        "checkpoint": args.checkpoint,
        "seed_set": args.seed_set if isinstance(fake, Painted) else None,
        "fake": "/".join(fake.key),
        "real": "/".join(real.key),
        "count": count,
        "extractor": extractor.label if extractor else None,
        "extractor_note": (extractor and extractor.note) or None,
        "like": args.like,
    }
