"""The layout of a run folder: the only place that knows where anything in it lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """Paths inside one run's folder.

    RUN/
      config.json      the resolved settings; read back strictly, nothing else is read later
      plugins.json     the packages whose plugins it uses, where it uses some
      metrics.jsonl    the truth: deterministic columns, one row per logged step
      system.jsonl     times, speeds, memory: one row per logged step of each attempt, and per measurement of a node
      events.jsonl     starts, stops, faults, rollbacks, in the order of time
      evaluations.jsonl  what `trainer evaluate` has measured: one row per checkpoint, seed set and extractor
      evaluation.log   what the evaluations beside the training say
      measuring.log    what the process says that measures the generator beside the training
      best.json        the best checkpoint by the measurements of the seed set "select"
      cache/           features, for an evaluation on several nodes
      description.json what the run sets otherwise than its recipe, and what its dataset holds: for those who show it
      exports.jsonl    the bundles that `trainer export` has made of it, and where
      wandb.json       the identity of the W&B run (no secrets)
      labels.json      with --network.label-columns: the labels, and those of some training pictures
      initial.safetensors  with --init-from: the weights that the run began with
      checkpoints/     one folder per checkpoint, see checkpoint.py
      samples/         real beside fake, one PNG per sampling: <images_seen>.png, and per alarm: alarm-….png
      report.html      what `launcher report` shows; report/: pictures for it, of a checkpoint each
      plan/            with --record-samples: the planned and the used index of each sample, one file per rank
      traces/          with --trace-steps: rank-<rank>.json.gz, for Perfetto
      wandb/           wandb's own files
      tensorboard/     with --tracking.tensorboard: event files, a folder for each W&B run
      lease.json       who trains here; touched every two seconds, removed in the end
      job.json         what was submitted to a cluster
      study.json       what a study measures of the run when it has ended; score-….json: what came of it
      attempts.jsonl   on a cluster: each start of the job, and how and why it ended
      resume.log       what a resume or a cancel says that `launcher watch` has started
      code/            on a cluster: the code that runs, one copy for each time the run was submitted
      logs/            on a cluster: <job>-<restart>/rank-<rank>.log, and what Slurm itself says
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.path / "config.json"

    @property
    def labels(self) -> Path:
        """The labels that the networks are told."""
        return self.path / "labels.json"

    @property
    def initial_weights(self) -> Path:
        """The weights that a fine-tuned run began with."""
        return self.path / "initial.safetensors"

    @property
    def metrics(self) -> Path:
        """Deterministic rows, keyed by images_seen."""
        return self.path / "metrics.jsonl"

    @property
    def system(self) -> Path:
        """Times, speeds and memory."""
        return self.path / "system.jsonl"

    def trace(self, rank: int) -> Path:
        """Some steps of a rank, by torch.profiler."""
        return self.path / "traces" / f"rank-{rank:05d}.json.gz"

    @property
    def events(self) -> Path:
        """Starts, stops, faults and rollbacks."""
        return self.path / "events.jsonl"

    @property
    def evaluations(self) -> Path:
        """What was measured of the checkpoints."""
        return self.path / "evaluations.jsonl"

    @property
    def measuring_log(self) -> Path:
        """The output of the process that measures the generator beside the training."""
        return self.path / "measuring.log"

    @property
    def plugins(self) -> Path:
        """The packages whose plugins the run uses."""
        return self.path / "plugins.json"

    @property
    def evaluation_log(self) -> Path:
        """What the evaluations beside the training say."""
        return self.path / "evaluation.log"

    @property
    def cache(self) -> Path:
        """Features that all nodes see."""
        return self.path / "cache"

    @property
    def best(self) -> Path:
        """The best checkpoint by these measurements."""
        return self.path / "best.json"

    @property
    def description(self) -> Path:
        """What the run sets otherwise than its recipe, and what its dataset holds."""
        return self.path / "description.json"

    @property
    def exports(self) -> Path:
        """The bundles that were made of it."""
        return self.path / "exports.jsonl"

    @property
    def wandb_identity(self) -> Path:
        """The W&B run's id, project and segments."""
        return self.path / "wandb.json"

    @property
    def wandb(self) -> Path:
        """The folder that wandb itself writes to."""
        return self.path / "wandb"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """One folder per checkpoint."""
        return self.path / "checkpoints"

    def newest_checkpoint(self) -> tuple[int, Path] | None:
        """The images seen at the newest checkpoint, and where it lies, by the names alone; None: there is none."""
        # By the names, without checkpoint.py, which loads torch: the launcher's commands are to answer at once.
        found = []
        for path in self.checkpoints.glob("[0-9]*-r[0-9]*"):
            images, _, rollbacks = path.name.partition("-r")
            if images.isdigit() and rollbacks.isdigit():
                found.append((int(rollbacks), int(images), path))
        # By rollbacks first: what a rollback has left behind is older, however far it had come.
        return max(found)[1:] if found else None

    @property
    def samples(self) -> Path:
        """Sample grids."""
        return self.path / "samples"

    def sample(self, images_seen: int) -> Path:
        """The sample grid when `images_seen` pictures had been seen."""
        return self.samples / f"{images_seen:012d}.png"

    def sample_grids(self) -> list[tuple[int, Path]]:
        """The images seen at each sample grid that there is, and where it lies, the newest last."""
        return sorted((int(path.stem), path) for path in self.samples.glob("*.png") if path.stem.isdigit())

    def alarm_images(self, images_seen: int, rollbacks: int) -> Path:
        """What the collapse monitor saw when it gave alarm."""
        return self.samples / f"alarm-{images_seen:012d}-r{rollbacks:02d}.png"

    @property
    def made_pictures(self) -> Path:
        """Pictures that a generator has made for the report: a folder of each checkpoint."""
        return self.path / "report"

    @property
    def plan(self) -> Path:
        """Recorded sample indices, one file per rank."""
        return self.path / "plan"

    @property
    def lease(self) -> Path:
        """Who trains here."""
        return self.path / "lease.json"

    @property
    def job(self) -> Path:
        """What was submitted to a cluster."""
        return self.path / "job.json"

    @property
    def study(self) -> Path:
        """What a study measures of the run when it has ended."""
        return self.path / "study.json"

    @property
    def attempts(self) -> Path:
        """Each start of the job, and how and why it ended."""
        return self.path / "attempts.jsonl"

    @property
    def resume_log(self) -> Path:
        """What a resume or a cancel says that has no terminal of its own."""
        return self.path / "resume.log"

    @property
    def code(self) -> Path:
        """Copies of the code that runs."""
        return self.path / "code"

    def newest_code(self) -> Path | None:
        """The copy of the code that the last submission to a cluster runs; None: there was none."""
        return max(self.code.glob("[0-9]*"), default=None)

    @property
    def logs(self) -> Path:
        """What the processes of a cluster's job say."""
        return self.path / "logs"

    def log(self, job: int, restart: int, rank: int) -> Path:
        """What one rank says in one start of a job."""
        return self.logs / f"{job}-{restart}" / f"rank-{rank:05d}.log"
