"""One W&B run: what it has already, and sending it what it lacks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.config.wandb_environment import forget_run, import_wandb
from trainer.core.migration import load_json
from trainer.runs.journal import Row
from trainer.runs.run_folder import RunFolder
from trainer.tracking.evaluation_rows import AXIS, EvaluationRows
from trainer.tracking.tracker import Identity

forget_run()
wandb = import_wandb()
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

    def send(self, row: Row, system: Row) -> None:
        """Send a row with the system figures and the sample grid of the same `images_seen`, unless W&B has it."""
        images_seen = row["images_seen"]
        if images_seen <= self.last:
            return
        self._wandb = self._wandb or self._open()
        figures = {f"system/{key}": value for key, value in system.items() if key != "images_seen"}
        row = row | figures | image_column("samples", self.run.sample(images_seen)) | self._alarms
        self._wandb.log(row | self.evaluation_rows.take(images_seen), step=images_seen, commit=True)
        self._alarms = {}
        self.last = images_seen
        self.sent += 1

    def alert(self, title: str, text: str, seen: Path) -> None:
        """Alert the run's owner; the picture goes with the next row."""
        self._wandb = self._wandb or self._open()
        self._wandb.alert(title, text, level="ERROR", wait_duration=1)  # seconds; 0 would be a minute
        self._alarms |= image_column("collapse/picture", seen)

    def finish(self, outcome: str) -> None:
        """Wait for the uploads; TimeoutError if they do not end."""
        while late := self.evaluation_rows.take(self.last + 1):  # no row comes any more that could take them along
            self.last += 1
            self._wandb = self._wandb or self._open()
            self._wandb.log({"images_seen": self.last} | late, step=self.last, commit=True)
        self.evaluation_rows.close()
        if self._wandb:
            if self._alarms:  # no row came any more that could have taken them along
                self._wandb.log(self._alarms, step=self.last + 1, commit=True)
            if outcome == "interrupted":
                self._wandb.mark_preempting()  # shown as preempted, not as crashed
            self._wandb.finish(exit_code=0 if outcome == "finished" else 1)

    def _open(self) -> Any:
        """Begin the run, or go on with it. Offline, each time makes a fragment of its own."""
        segment = self._identity.segments[self.number]
        previous = self._identity.segments[self.number - 1].id if self.number else None
        config = load_json(self.run.config) if self.run.config.exists() else {}
        opened = wandb.init(
            project=self._identity.project,
            entity=self._identity.entity,
            id=segment.id,
            name=f"{self._identity.name}-{self.number}" if previous else self._identity.name,
            group=self._identity.group,
            job_type=self._identity.job_type,
            tags=self._identity.tags or None,
            notes=self._notes(),
            config=config | ({"continues": previous} if previous else {}),
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
        opened.define_metric("images_seen", hidden=True)
        opened.define_metric(AXIS, hidden=True)  # the first that matches wins
        opened.define_metric("evaluation/*", step_metric=AXIS)
        opened.define_metric("*", step_metric="images_seen")
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


def image_column(name: str, path: Path) -> Row:
    """A picture as a column of a row, if there is one."""
    if not path.exists():
        return {}
    try:
        return {name: wandb.Image(str(path))}
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
