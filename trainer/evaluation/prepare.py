"""Make the plan of an evaluation from its arguments; everything that can be wrong with them is found here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from shards.storage.place import Place
from trainer.core.fields import Refused
from trainer.core.registry import choose_from
from trainer.evaluation.arguments import Evaluate, command_line
from trainer.evaluation.best_checkpoint import best_checkpoint_name
from trainer.evaluation.extraction import ExtractionTask
from trainer.evaluation.figures import MAX_IMAGES
from trainer.evaluation.generated_source import GeneratedImages
from trainer.evaluation.plan import EvaluationPlan, explain_no_metrics
from trainer.evaluation.reference_conventions import CONVENTIONS, Convention, metric_by_convention
from trainer.evaluation.source import ORDER_OF_FAKES, FolderImages, ImageSource, Labels, Rows, ShardImages, open_images
from trainer.extractors import DEFAULT, EXTRACTORS, Extractor, ExtractorOptions, LabelledImages
from trainer.extractors.base import Missing
from trainer.metrics import METRICS, Metric
from trainer.runs.bundle_files import is_bundle
from trainer.runs.checkpoint import newest_or_refuse
from trainer.runs.run_folder import RunFolder
from trainer.runs.trained_weights import TrainedWeights, named_checkpoint
from trainer.sampling.image_files import check_parent
from trainer.sampling.sampler import Images

MIN_IMAGES = 2  # per side; a covariance needs two


def find_run(path: Place) -> RunFolder | None:
    """Return the run in a folder; None: it holds none."""
    if not isinstance(path, Path) or is_bundle(path):
        return None
    return RunFolder(path) if RunFolder(path).config.exists() else None


def with_checkpoint_name(args: Evaluate) -> Evaluate:
    """Return the arguments with the checkpoint by its name, so that all processes use the same one.

    While a run trains, the newest checkpoint changes.

    Raises:
        Refused: there is none, or the arguments do not fit together.
    """
    args.check()
    args = replace(args, cache=args.cache.expanduser())
    run = find_run(args.subject)
    if run is None:
        if args.checkpoint is not None:
            raise Refused(f"--checkpoint is of a run, and {args.subject} holds none")
        return args
    asked = best_checkpoint_name(run) if args.checkpoint == "best" else args.checkpoint
    found = newest_or_refuse(run) if asked is None else named_checkpoint(run, asked)
    return replace(args, checkpoint=found.path.name)


def open_sources(args: Evaluate, run: RunFolder | None) -> tuple[ImageSource, ShardImages | FolderImages]:
    """Open the images to measure, and the real ones.

    Raises:
        Refused: there are none, or their sizes or their classes do not fit together.
    """
    bundle = isinstance(args.subject, Path) and is_bundle(args.subject)
    if run is None and args.against is None:
        raise Refused(f"{args.subject} holds no run, so name the real pictures: --against DATA or a folder")
    if run is None and not bundle:
        assert args.against is not None
        real = open_images(args.against, None)
        return open_images(args.subject, real.form, ORDER_OF_FAKES), real
    assert isinstance(args.subject, Path)
    weights = TrainedWeights.open(args.subject, args.checkpoint)
    config = weights.config
    against = args.against or config.data
    if against is None or not config.network.size:
        raise Refused(f"{args.subject} was not trained on shards of pictures: there is nothing to compare with")
    columns = config.network.label_names if config.network.g_conditional else ()
    real = open_images(against, (*config.network.shape, config.network.channels), columns=columns)
    return GeneratedImages(weights, args.seed_set, real), real


def plan_evaluation(args: Evaluate, classifier: Missing = "learn") -> EvaluationPlan:
    """Check the arguments, and return the plan.

    Args:
        args: with the checkpoint by its name.
        classifier: what to do if the classifier is asked for and does not exist yet, as in `ExtractorOptions`.

    Raises:
        Refused: it cannot be done.
    """
    run = find_run(args.subject)
    # dict.fromkeys drops repeated names and keeps the order.
    metrics = [choose_from(METRICS, name, "metric") for name in dict.fromkeys(args.metrics)]
    named = args.reference_convention
    convention = choose_from(CONVENTIONS, named, "convention") if named else None
    check_values(args)
    fake, real = open_sources(args, run)
    wanted = {need for metric in metrics for need in metric.needs}
    held_out = real.held_out() if "held out" in wanted else None
    most = args.num_samples if convention else real.count  # other programs compare more fakes than reals, too
    count = min(args.num_samples, fake.count or args.num_samples, most)
    if min(count, real.count) < MIN_IMAGES:
        raise Refused(f"one picture is too few: {fake.name} or {real.name} has no more")
    extractor = open_extractor(args, convention, real, classifier) if wanted & {"features", "probabilities"} else None
    missing = unmet_needs(fake, real, held_out, extractor)
    left_out = {metric.name: missing[need] for metric in metrics for need in sorted(metric.needs) if need in missing}
    if convention:
        unknown = [metric.name for metric in metrics if not metric_by_convention(metric, convention)]
        left_out |= dict.fromkeys(unknown, f"{args.reference_convention} has no such figure")
    measured = tuple(apply_convention(metric, convention) for metric in metrics if metric.name not in left_out)
    if not measured:
        raise Refused(explain_no_metrics(left_out))
    whole = any(metric.against == "all" for metric in measured)  # one extraction serves all metrics
    reals = real.count if whole else min(2 * count, real.count)  # the second half stands in for the fakes in the floor
    kept, cache = MAX_IMAGES if "images" in wanted else 0, args.cache.expanduser()
    return EvaluationPlan(
        run,
        evaluation_facts(args, fake, real, count, extractor),
        measured,
        left_out,
        column_label(extractor, args.reference_convention),
        ExtractionTask(
            fake, extractor, count, min(kept, count), cache, repr(command_line(replace(args, processes=None)))
        ),
        ExtractionTask(real, extractor, reals, min(2 * kept, reals), cache),
        ExtractionTask(held_out, extractor, min(count, held_out.count), 0, cache) if held_out else None,
    )


def check_values(args: Evaluate) -> None:
    """Refuse too few pictures, and files that cannot be written.

    Raises:
        Refused: naming the option, or the folder.
    """
    if args.num_samples < MIN_IMAGES:
        raise Refused(f"--num-samples must be at least {MIN_IMAGES}, but is {args.num_samples}")
    for file in (args.json, args.out):  # a wrong path is refused now, not after an hour
        if file:
            check_parent(file)


def column_label(extractor: Extractor | None, convention: str | None) -> str:
    """Return what columns are labelled with: figures by another extractor or convention must not share a column."""
    return "/".join([*([extractor.label] if extractor else []), *([f"like-{convention}"] if convention else [])])


def apply_convention(metric: Metric, convention: Convention | None) -> Metric:
    """Return a metric by its own definition, or by that of a convention that has it."""
    return (metric_by_convention(metric, convention) if convention else None) or metric


def open_extractor(
    args: Evaluate, convention: Convention | None, real: ShardImages | FolderImages, classifier: Missing
) -> Extractor:
    """Open the extractor that is named, or that of the convention.

    Raises:
        Refused: its file is missing, or it learns classes and the data has none.
    """
    if convention and args.extractor not in (None, convention.extractor):
        raise Refused(
            f"--reference-convention {args.reference_convention} is with {convention.extractor}: "
            f"leave --extractor {args.extractor} out"
        )
    name = convention.extractor if convention else args.extractor or DEFAULT
    resize = convention.resize if convention else None
    opener = choose_from(EXTRACTORS, name, "extractor")
    return opener(ExtractorOptions(args.weights, resize, labelled_images(real), args.cache.expanduser(), classifier))


def labelled_images(real: ShardImages | FolderImages) -> LabelledImages:
    """Return the real images with their classes, for training a classifier."""

    def read(rows: Rows) -> tuple[Images, Labels]:
        labels = real.labels(rows)
        assert labels is not None
        return real.images(rows), labels

    return LabelledImages(real.name, real.key, real.classes, real.count, read)


def unmet_needs(
    fake: ImageSource, real: ImageSource, held_out: ImageSource | None, extractor: Extractor | None
) -> dict[str, str]:
    """Return what metrics may need and these sources lack, with the reasons."""
    missing = {}
    if held_out is None:  # without it, nothing distinguishes memorization from a good fit
        missing["held out"] = f"{real.name} has no held-out share; shards build --holdout makes one"
    if not (fake.classes and real.classes):
        unlabelled = real if fake.classes else fake
        missing["labels"] = f"the pictures of {unlabelled.name} have no classes"
    elif fake.classes != real.classes:  # labels are indices of these names
        missing["labels"] = f"{fake.name} and {real.name} have different classes, or the same in another order"
    if extractor and not extractor.classes:
        missing["probabilities"] = f"{extractor.name} tells no classes; --extractor classifier does"
    return missing


def evaluation_facts(
    args: Evaluate, fake: ImageSource, real: ImageSource, count: int, extractor: Extractor | None
) -> dict[str, object]:
    """Return what the figures hold for: the head of an evaluation in JSON."""
    return {
        "images_seen": fake.weights.images_seen if isinstance(fake, GeneratedImages) else None,
        "checkpoint": args.checkpoint,
        "seed_set": args.seed_set if isinstance(fake, GeneratedImages) else None,
        "fake": "/".join(fake.key),
        "real": "/".join(real.key),
        "count": count,
        "extractor": extractor.label if extractor else None,
        "extractor_note": (extractor and extractor.note) or None,
        "like": args.reference_convention,  # this key and like- in columns are in files of earlier versions
    }
