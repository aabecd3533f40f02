"""One W&B run: what it has already, and sending it what it lacks."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.config.wandb_environment import forget_run, import_wandb
from trainer.runs.journal import Row
from trainer.runs.run_folder import RunFolder
from trainer.tracking.evaluation_rows import EvaluationRows
from trainer.tracking.tracker import Identity
from trainer.tracking.wandb_config import define_axes, define_best, run_config

forget_run()
wandb = import_wandb()
ARTIFACT_LETTERS = re.compile(r"[^A-Za-z0-9._-]")
MOST_LETTERS = 128  # of an artifact's name
ARTIFACT_S = 60  # that W&B has to take one
Record = Any  # a protobuf message, whose class is made at run time


class WandbRun:
    """The W&B run of one segment, which holds each row once, in the order of `images_seen`.

    `images_seen` is also W&B's own step. So the server's last step tells which rows it has, even if a kill fell between
    the upload of the rows and that of their summary.
    """

    def __init__(self, run: RunFolder, identity: Identity, number: int, online: bool) -> None:
        self.run = run
        self.number = number
        self.id = identity.segments[number].id
        self.sent = 0
        self._alarms: Row = {}
        self._identity, self._online = identity, online
        self._wandb = self._open() if online else None
        self.last = self._wandb.starting_step - 1 if self._wandb else last_recorded(run.wandb, self.id)
        self.evaluation_rows = EvaluationRows(run, self.id, self.last)

    @property
    def name(self) -> str:
        """The run's in W&B."""
        return self._identity.name

    def send(self, row: Row, system: Row, attempt: Row) -> None:
        """Send a row with what belongs to the same `images_seen`, unless W&B has it.

        Args:
            row: of metrics.jsonl.
            system: figures of the system.
            attempt: which attempt made it, and when.
        """
        images_seen = row["images_seen"]
        if images_seen <= self.last:
            return
        figures = {f"system/{key}": value for key, value in system.items() if key != "images_seen"}
        caption = f"{images_seen:,} images: real on the left, generated on the right"
        row = row | figures | attempt | image_column("samples", self.run.sample(images_seen), caption) | self._alarms
        self._log(row | self._evaluation(images_seen), images_seen)
        self._alarms = {}
        self.last = images_seen
        self.sent += 1

    def alert(self, title: str, text: str, level: str, seen: Path | None) -> None:
        """Alert the run's owner; the picture goes with the next row."""
        self._opened().alert(title, text, level=level, wait_duration=1)  # seconds; 0 would be a minute
        if seen:
            self._alarms |= image_column("collapse/picture", seen, f"{title}: {text}")

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Put a table into the run's summary, in place of the one before."""
        self._opened().summary[name] = wandb.Table(columns=[*columns], data=[[*row] for row in rows])

    def artifact(
        self, kind: str, name: str, files: Mapping[str, str], metadata: Mapping[str, Any], aliases: Sequence[str]
    ) -> None:
        """Tell of an artifact that lies where `files` say; a dataset is used by this run, anything else made by it."""
        made = wandb.Artifact(ARTIFACT_LETTERS.sub("-", name)[:MOST_LETTERS], type=kind, metadata=dict(metadata))
        for file, url in files.items():
            made.add_reference(url, name=file, checksum=False)  # hashes stand in the metadata; files may be large
        if kind == "dataset":
            self._opened().use_artifact(made)
        else:
            # One after the other: W&B calls the version "latest" that arrives last.
            self._opened().log_artifact(made, aliases=["latest", *aliases]).wait(ARTIFACT_S)

    def finish(self, outcome: str) -> None:
        """Wait for the uploads; TimeoutError if they do not end."""
        while late := self._evaluation(self.last + 1):  # no row comes any more that could take them along
            self.last += 1
            self._log({"images_seen": self.last} | late, self.last)
        self.evaluation_rows.close()
        if self._wandb:
            if self._alarms:  # no row came any more that could have taken them along
                self._log(self._alarms, self.last + 1)
            if outcome == "interrupted":
                self._wandb.mark_preempting()  # shown as preempted, not as crashed
            self._wandb.finish(exit_code=0 if outcome == "finished" else 1)

    def _evaluation(self, images_seen: int) -> Row:
        """Return the columns of an evaluation that goes along with this row, and say which of them are best low."""
        columns = self.evaluation_rows.take(images_seen)
        if columns:
            define_best(self._opened(), self.evaluation_rows.taken)
        return columns

    def _log(self, row: Row, step: int) -> None:
        self._opened().log(row, step=step, commit=True)

    def _opened(self) -> Any:
        self._wandb = self._wandb or self._open()
        return self._wandb

    def _open(self) -> Any:
        """Begin the run, or go on with it. Offline, each time makes a fragment of its own."""
        segment = self._identity.segments[self.number]
        previous = self._identity.segments[self.number - 1].id if self.number else None
        opened = wandb.init(
            project=self._identity.project,
            entity=self._identity.entity,
            id=segment.id,
            name=f"{self._identity.name}-{self.number}" if previous else self._identity.name,
            group=self._identity.group,
            job_type=self._identity.job_type,
            tags=self._identity.tags or None,
            notes=self._notes(),
            config=run_config(self.run, previous),
            dir=self._folder(),
            mode="online" if self._online else "offline",
            resume="allow" if self._online else None,  # offline, wandb never resumes: it makes a fragment of its own
            settings=wandb.Settings(
                # Our rows and nothing else: wandb would add the machine, the code and the output of rank 0.
                console="off",
                disable_code=True,
                disable_git=True,
                finish_timeout_raises=True,
                quiet=True,
                x_disable_machine_info=True,
                x_disable_meta=True,
                x_disable_stats=True,  # system.jsonl has what we want to know of all nodes
                x_save_requirements=False,
            ),
        )
        define_axes(opened)
        return opened

    def _notes(self) -> str | None:
        """What the user has noted, and what this W&B run continues."""
        lines = [self._identity.notes] if self._identity.notes else []
        if self.number:
            before, segment = self._identity.segments[self.number - 1], self._identity.segments[self.number]
            lines.append(f"continues {before.id} from images_seen {segment.from_images_seen}: {segment.reason}")
        return "\n".join(lines) or None

    def _folder(self) -> Path:
        """Where wandb writes. Online it is emptied each time: a server that is down for days must not fill the disk."""
        if not self._online:
            return self.run.path
        folder = self.run.wandb / "online"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder


def image_column(name: str, path: Path, caption: str) -> Row:
    """A picture as a column of a row, if there is one."""
    if not path.exists():
        return {}
    try:
        return {name: wandb.Image(str(path), caption=caption)}
    except OSError as error:
        print(f"{path} is not sent: {error}", flush=True)
        return {}


def stop_service() -> None:
    """End wandb's own process, and whatever it still tries to send."""
    wandb.teardown(exit_code=1)


def last_recorded(folder: Path, run_id: str) -> int:
    """The last `images_seen` in the offline fragments of a W&B run; -1 without any."""
    steps = [-1]
    for path in folder.glob(f"offline-run-*-{run_id}/run-{run_id}.wandb"):
        for record in whole_records(path.read_bytes()):
            steps += [int(item.value_json) for item in record.history.item if [*item.nested_key] == ["images_seen"]]
    return max(steps)


def whole_records(data: bytes) -> Iterator[Record]:
    """The records of a fragment up to its torn end, in LevelDB's log format: a file header, then blocks of pieces."""
    from wandb.proto import wandb_internal_pb2

    block_size, header_size, first, last = 32768, 7, (1, 2), (1, 4)
    position, whole = header_size, b""
    while position + header_size <= len(data):
        if (left := block_size - position % block_size) < header_size:
            position += left  # the end of a block, too short for a header, is filling
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        piece = data[position + header_size : position + header_size + length]
        if not kind or len(piece) < length:
            return
        # Kinds: 1 a whole record, 2 its first piece, 3 one in the middle, 4 its last; 0: nothing was written here.
        whole = piece if kind in first else whole + piece
        if kind in last:
            yield wandb_internal_pb2.Record.FromString(whole)
        position += header_size + length
