"""What the saved W&B workspace shows: sections and panels as data, without W&B's libraries.

docs/tracking.md has this as a table; a test compares both, and the columns with those that runs write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trainer.tracking.attempt_rows import HOURS
from trainer.tracking.evaluation_rows import AXIS

SEEN = "images_seen"
NODE = r"system/node-[0-9]+/"

Kind = Literal["line", "area", "media", "table"]


@dataclass(frozen=True)
class Panel:
    """One panel.

    `columns` are names of columns; a line may have a regular expression instead, which begins with ^.
    """

    title: str
    shows: str
    columns: tuple[str, ...]
    axis: str = SEEN
    kind: Kind = "line"
    log: bool = False

    @property
    def pattern(self) -> str | None:
        """The regular expression, if it has one."""
        return self.columns[0] if self.columns[0].startswith("^") else None


def measured(title: str, shows: str, names: str) -> Panel:
    """Return the panel of some figures of evaluations: each with both ends of its interval."""
    return Panel(title, shows, (f"^evaluation/[^/]+/({names})_[^/]*/.*$",), AXIS)


def of_nodes(title: str, shows: str, names: str) -> Panel:
    """Return the panel of a figure of every node."""
    return Panel(title, shows, (f"^{NODE}({names})$",))


PENALTIES = (
    "r1|r2|wgan_gp|dragan|lecam|bcr|zcr_d|zcr_g|orthogonal_g|orthogonal_d|path_length|classes_d|classes_g|style|"
    "ambiguity|feature_matching|reconstruction|cutmix"
)

SECTIONS: dict[str, tuple[Panel, ...]] = {
    "Losses": (
        Panel("Losses", "what D and G minimise", ("loss_d", "loss_g")),
        Panel("D's logits", "what D says of real and of generated pictures", ("logits_real", "logits_fake")),
        Panel("Gradients", "their norms, before the step", ("grad_norm_d", "grad_norm_g"), log=True),
        Panel("Penalties", "each penalty that the run has", (f"^({PENALTIES})$",)),
        Panel("Augmentation", "ADA's and APA's p, and the sign that they go by", ("augment_p", "sign_real")),
    ),
    "Collapse": (
        Panel("Health", "0 healthy, 1 warning, 2 collapsed, 3 diverged", ("collapse/health",)),
        Panel("Diversity", "different pictures, and covered reals; the data's own is 1",
              ("collapse/diversity", "collapse/coverage")),
        Panel("Similarity", "how alike pictures are, above the data's own", ("collapse/similarity",)),
        Panel("Distance to the data", "of the median picture; the data's own is 1", ("collapse/distance_to_data",)),
        Panel("Classes", "total variation to the data's", ("collapse/classes",)),
        Panel("Alarms", "the pictures of each alarm", ("collapse/picture",), kind="media"),
    ),
    "Metrics with intervals": (
        Panel("Distance of the grid", "sliced Wasserstein, each time that a grid is made", ("swd_512",)),
        measured("FID", "FID and FID∞, with both ends of their intervals", "fid|fid_infinity|intra_fid"),
        measured("KID", "kernel distance, with its interval", "kid"),
        measured("Precision and recall", "density, coverage, with intervals", "precision|recall|density|coverage"),
        measured("Diversity", "Inception score, MS-SSIM, Vendi score, with intervals",
                 "is|ms_ssim|intra_ms_ssim|vendi"),
        measured("Memorisation", "AuthPct, nearer pictures, and the test's p", "authpct|nearer|memorisation_p"),
    ),
    "Pictures": (
        Panel("The grid through time", "real on the left, generated on the right; a slider over images seen",
              ("samples",), kind="media"),
    ),
    "Speed": (
        Panel("Images per second", "of the whole run", ("system/images_per_s",)),
        Panel("Where a step's time goes", "shares of it",
              tuple(f"system/time/{name}" for name in ("data", "draws", "forward_backward", "exchange", "optimizer",
                                                       "other")), kind="area"),
        Panel("Standstill", "shares of the time spent on anything but training",
              tuple(f"system/stall/{name}" for name in ("samples", "collapse", "checkpoint", "evaluation"))),
        Panel("Memory of rank 0", "its peak, in MB", ("system/peak_memory_mb",)),
    ),
    "System of every node": (
        of_nodes("Processors", "% busy", "cpu_percent"),
        of_nodes("Memory", "MB used", "memory_used_mb"),
        of_nodes("GPUs", "% busy, of each", r"gpu/[0-9]+/percent"),
        of_nodes("GPU memory", "MB used, of each", r"gpu/[0-9]+/memory_used_mb"),
        of_nodes("GPU power", "W, of each", r"gpu/[0-9]+/power_w"),
        of_nodes("GPU temperature", "°C, of each", r"gpu/[0-9]+/temperature_c"),
        of_nodes("Network", "MB/s, InfiniBand apart", "(network|infiniband)_(receive|send)_mb_per_s"),
        of_nodes("Disks", "MB/s", "disk_(read|write)_mb_per_s"),
    ),
    "Interruptions": (
        Panel("Progress through time", "images seen over hours; gaps and steps back are interruptions",
              ("attempt/images_seen",), HOURS),
        Panel("Attempt", "which attempt trains, over hours", ("attempt/number",), HOURS),
        Panel("Attempts", "when each began, what it lost, how it ended and why", ("attempts",), kind="table"),
    ),
    "Data": (
        Panel("Left out", "files that are not in the dataset, by reason", ("data/excluded",), kind="table"),
        Panel("Balance", "pictures of each class", ("data/classes",), kind="table"),
        Panel("Damaged while training", "samples replaced in a step", ("replaced",)),
    ),
}  # fmt: skip


def markdown_table() -> str:
    """Return the sections and panels as a table of Markdown."""
    rows = ["| section | panel | what it shows |", "|---|---|---|"]
    rows += [
        f"| {section} | {panel.title} | {panel.shows} |" for section, panels in SECTIONS.items() for panel in panels
    ]
    return "\n".join(rows)
