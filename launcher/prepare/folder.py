"""The folder of a preparation, and what it says in `prepare.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from launcher.jobs.runs import HOME
from shards.atomic_files import write_atomically
from trainer.core.fields import Refused
from trainer.core.migration import load_json, with_schema
from trainer.runs.run_folder import RunFolder


@dataclass(frozen=True)
class PlannedShare:
    """The share of one task of the array."""

    start: int
    """The number of its first task."""
    stop: int
    """The number behind that of its last task."""
    size: int
    """Pictures or tars in those of its tasks that were open when it was submitted."""
    bytes: int
    """That are read for them."""


@dataclass(frozen=True)
class Preparation:
    """What was submitted last."""

    kind: str
    """build or index."""
    unit: str
    """What is counted: pictures, or tars."""
    arguments: Sequence[str]
    """The command line, without the command."""
    directory: str
    """Where it was given: paths in it are seen from there."""
    out: str
    submission: int
    """How often it was submitted."""
    total: int
    """Pictures or tars in all."""
    done_before: int
    """Those that were done when it was submitted."""
    shares: Sequence[PlannedShare]
    finished_here: bool = False
    """On one machine, by --cluster local, after what the jobs had done."""


@dataclass(frozen=True)
class PrepareFolder:
    """Paths inside one preparation's folder.

    FOLDER/
      prepare.json       what was submitted
      shares/            a folder for each share of each submission, SUBMISSION-NUMBER, and SUBMISSION-finish: in it lie
                         job.json, attempts.jsonl, events.jsonl and logs/, as in a run folder, and progress.json
      logs/slurm/        what the batch scripts and Slurm itself say
      code/              the code that runs, one copy for each submission
      work/              what is unfinished, if --out is a URL and --work is not given
    """

    path: Path

    @property
    def record(self) -> Path:
        """What was submitted."""
        return self.path / "prepare.json"

    @property
    def batch_logs(self) -> Path:
        """What the batch scripts say."""
        return self.path / "logs" / "slurm"

    def code(self, submission: int) -> Path:
        """The code of a submission."""
        return self.path / "code" / f"{submission:04d}"

    def share(self, submission: int, number: int) -> RunFolder:
        """The folder of a share."""
        return RunFolder(self.path / "shares" / f"{submission:04d}-{number:04d}")

    def finish(self, submission: int) -> RunFolder:
        """The folder of the job that finishes."""
        return RunFolder(self.path / "shares" / f"{submission:04d}-finish")

    def save(self, preparation: Preparation) -> None:
        """Write what is submitted."""
        write_atomically(self.record, json.dumps(with_schema(asdict(preparation)), indent=1).encode() + b"\n")

    @property
    def newest(self) -> Preparation:
        """What was submitted last.

        Raises:
            Refused: it cannot be read, or a later version wrote it.
        """
        try:
            values = load_json(self.record)
            shares = [PlannedShare(**share) for share in values["shares"]]
            return Preparation(**values | {"shares": shares})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise Refused(f"{self.record} cannot be read: {error}") from error

    @property
    def shares(self) -> list[RunFolder]:
        """The folders of the shares that were submitted last."""
        return self.shares_of(self.newest)

    def shares_of(self, preparation: Preparation) -> list[RunFolder]:
        """The folders of the shares of a submission."""
        return [self.share(preparation.submission, number) for number in range(len(preparation.shares))]

    @property
    def finishing(self) -> RunFolder:
        """The folder of the job that finishes them."""
        return self.finish(self.newest.submission)

    @property
    def jobs(self) -> dict[str, RunFolder]:
        """The folders of all jobs that were submitted last, by what they are called."""
        newest = self.newest
        shares = {f"share {number}": run for number, run in enumerate(self.shares_of(newest))}
        return {**shares, "finish": self.finish(newest.submission)}


def is_preparation(path: Path) -> bool:
    """Tell whether a folder is that of a preparation."""
    return PrepareFolder(path).record.exists()


def named_preparation(arguments: Sequence[str]) -> Path | None:
    """Return the first word of a command line that is the folder of a preparation; None: there is none."""
    return next((Path(word) for word in arguments if not word.startswith("-") and is_preparation(Path(word))), None)


def find_preparations(home: Path = HOME) -> list[PrepareFolder]:
    """Return the preparations in a folder, the one that was submitted last first."""
    found = []
    for path in home.iterdir() if home.is_dir() else ():
        try:
            found.append((PrepareFolder(path).record.stat().st_mtime, path))
        except OSError:
            continue  # none, or removed just now
    return [PrepareFolder(path) for _, path in sorted(found, reverse=True)]
