"""Groups of settings of parts that have no package of their own below this one."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from trainer.core.fields import identity, later_identity, operational

FORBIDDEN_IN_PROJECT = "/\\#?%:"  # W&B's own rules, here and below
MOST_LETTERS = 128
MOST_LETTERS_OF_A_TAG = 64
LEAST_IMAGES = 32  # training pictures: of fewer, nothing can be said
# The names of collapse/rollback_changes.py, which this package must not import; a test compares them.
CHANGES = "learning-rate", "penalty", "augmentation", "packing", "draws"
Policy = Literal["tell", "stop", "roll-back"]


@dataclass(frozen=True)
class OptimizerSettings:
    """Adam for both networks, and the generator's moving average."""

    g_lr: float = identity(2e-4, "(0, inf)")
    """The generator's learning rate."""
    d_lr: float = identity(2e-4, "(0, inf)")
    """The discriminator's learning rate."""
    beta1: float = identity(0.5, "[0, 1)")
    """Decay of the first moment."""
    beta2: float = identity(0.999, "[0, 1)")
    """Decay of the second moment."""
    eps: float = identity(1e-8, "(0, inf)")
    """Added to the root of the second moment."""
    ema_half_life_images: float = identity(10_000.0, "[0, inf)")
    """Pictures after which old weights count half in the moving average; 0: it is the weights."""
    ema_half_life_final: float | None = later_identity(None, "[0, inf)")
    """The half-life moves there, along half a cosine, over optimizer.decay_images."""
    ema_ramp: float = identity(0.05, "[0, inf)")
    """The half-life is at most this share of the pictures seen so far (Karras et al. 2020); 0: no ramp."""
    warmup_images: int = identity(0, "[0, inf)")
    """Pictures over which both learning rates rise from 0."""
    decay_images: int = identity(0, "[0, inf)")
    """Pictures over which what has a final value moves there, along half a cosine; 0: nothing moves."""
    lr_final: float = identity(1.0, "[0, inf)")
    """The final learning rates, as a share of the first ones."""
    beta2_final: float | None = identity(None, "[0, 1)")
    """The final decay of the second moment."""


@dataclass(frozen=True)
class CheckpointSettings:
    """Which checkpoints stay."""

    keep_last: int = operational(3, "[1, inf)")
    """Keep so many of the newest checkpoints."""
    keep_every_images: int = operational(0, "[0, inf)")
    """Besides, keep the first checkpoint of each interval of so many pictures; 0: none."""


@dataclass(frozen=True)
class MetricsSettings:
    """Evaluations of checkpoints, beside the training, by a process of low priority."""

    every_images: int = operational(0, "[0, inf)")
    """Evaluate the first checkpoint after each so many pictures; 0: none."""
    names: str = operational("fid,kid,prdc")
    """The metrics, with commas between them; python -m trainer evaluate --help names them all."""
    num_samples: int = operational(5_000, "[2, inf)")
    """Compare so many pictures of each side, or as many as the data has."""
    extractor: str | None = operational(None)
    """What turns pictures into features; default: that of python -m trainer evaluate."""
    keep_best: str | None = operational("fid")
    """Keep the best checkpoint by this figure, such as fid or recall, and name it in best.json; None: none."""

    @property
    def chosen(self) -> tuple[str, ...]:
        """The names, one by one."""
        return tuple(name.strip() for name in self.names.split(","))

    def check(self) -> str | None:
        """Return what is wrong with these settings, or None."""
        if self.extractor is not None:
            # Here, because few runs name one, and it loads networks.
            from trainer.extractors import EXTRACTORS

            if self.extractor not in EXTRACTORS:
                return f"metrics.extractor: there is no {self.extractor!r}; there are {', '.join(EXTRACTORS)}"
        if not self.every_images and self.names == MetricsSettings.names:
            return None
        from trainer.metrics import METRICS  # it takes a second, which most runs need not spend

        if unknown := [name for name in self.chosen if name not in METRICS]:
            return f"metrics.names: there is no metric {unknown[0]!r}; there are {', '.join(METRICS)}"
        figures = [figure for name in self.chosen for figure in METRICS[name].better]
        if self.every_images and self.keep_best is not None and self.keep_best not in figures:
            return f"metrics.keep_best is {self.keep_best!r}, and metrics.names give {', '.join(figures)}"
        return None


@dataclass(frozen=True)
class TrackingSettings:
    """Where a run shows its progress. What it is called and grouped by is fixed when the run begins."""

    mode: Literal["auto", "online", "offline", "disabled"] = operational("auto")
    """auto: what WANDB_MODE says, else online if there is a W&B key, else offline"""
    project: str = operational("lienzo")
    """The W&B project."""
    entity: str | None = operational(None)
    """W&B user or team; the key's own by default"""
    name: str | None = operational(None)
    """name shown in W&B; the run folder's by default"""
    group: str | None = operational(None)
    """group in W&B; by default the run has one of its own, with what follows after a rollback"""
    tags: str | None = operational(None)
    """tags in W&B, separated by commas"""
    notes: str | None = operational(None)
    """notes in W&B"""
    job_type: str | None = operational(None)
    """type of job in W&B"""
    tensorboard: bool = operational(False)
    """write the same rows for TensorBoard, too, into RUN/tensorboard"""

    @property
    def tag_list(self) -> tuple[str, ...]:
        """The tags one by one."""
        return tuple(tag.strip() for tag in (self.tags or "").split(",") if tag.strip())

    def check(self) -> str | None:
        """Return what is missing, or what W&B would refuse, which would keep every row from it, or None."""
        if self.tensorboard and find_spec("tensorboard") is None:
            return "tracking.tensorboard needs tensorboard: pip install 'lienzo[tensorboard]'"
        if odd := sorted({*self.project} & {*FORBIDDEN_IN_PROJECT}):
            return f"tracking.project must not hold {' '.join(odd)}, but is {self.project!r}"
        if long := [tag for tag in self.tag_list if len(tag) > MOST_LETTERS_OF_A_TAG]:
            return f"tracking.tags: a tag must have at most {MOST_LETTERS_OF_A_TAG} letters, but {long[0]!r} has more"
        named = ("project", "name", "group", "job_type")
        long = [name for name in named if len(getattr(self, name) or "") > MOST_LETTERS]
        return f"tracking.{long[0]} must have at most {MOST_LETTERS} letters" if long else None


@dataclass(frozen=True)
class CollapseSettings:
    """How the run is watched for collapse, and what happens then."""

    every_images: int | None = identity(None, "[0, inf)")
    """Measure images of the generator each time so many pictures were seen; 0, or fewer than 32 pictures: never.
    Default: a 64th of the run as it begins, and at least 32,000."""
    policy: Policy = operational("tell")
    """tell: alert, and train on; stop: save, and end; roll-back: go back to the last healthy anchor, and go on from
    there with other draws and with what the changes say, max_rollbacks times in all."""
    changes: str = operational("learning-rate,penalty,augmentation")
    """What each roll-back changes, in turn: learning-rate, penalty, augmentation, packing, draws (nothing besides)."""

    def check(self) -> str | None:
        """Return what is wrong with these settings, or None."""
        names = parse_changes(self.changes)
        if odd := [name for name in names if name not in CHANGES]:
            return f"collapse.changes: there is no change {odd[0]!r}; there are {', '.join(CHANGES)}"
        return None if names else f"collapse.changes names none: at least one of {', '.join(CHANGES)}"


def parse_changes(changes: str) -> list[str]:
    """Read names that are separated by commas."""
    return [name.strip() for name in changes.split(",") if name.strip()]
