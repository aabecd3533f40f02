"""What `launcher prepare` takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from command_line.arguments import parse
from command_line.help_page import HelpPage
from launcher.jobs.resource_request import ClusterName, ResourceRequest
from launcher.prepare.work import BuildWork, IndexWork, Work
from shards.building.add_options import adopt_settings, options_given
from shards.building.options import Build
from shards.indexing.options import IndexTars
from trainer.core.fields import Refused


@dataclass(frozen=True)
class ArrayRequest:
    """What the jobs ask for; what is left out comes from the profile, then from the cluster."""

    nodes: int = 1
    """How many nodes: each makes a share, in a task of one array; any number gives the same bytes."""
    cluster: ClusterName = "auto"
    """auto: Slurm if it is there, else this machine."""
    time: str | None = None
    """Time limit of one attempt of a share: minutes, hours:minutes:seconds, days-hours."""
    partition: str | None = None
    """Slurm's partition; default: the cluster's."""
    profile: str | None = None
    """A site profile: a .toml file, or the name of an example in slurm/profiles."""
    name: str | None = None
    """The jobs' name; default: that of --run."""

    def of_share(self) -> ResourceRequest:
        """Return what the job of one share asks for: a node, without its GPUs.

        Raises:
            Refused: there is no share.
        """
        if self.nodes < 1:
            raise Refused(f"--nodes must be at least 1, but is {self.nodes}")
        return ResourceRequest("1", self.cluster, 0, self.time, self.partition, self.profile, self.name)


@dataclass(frozen=True)
class JobOptions:
    """What is the same for both."""

    run: Path | None = None
    """The folder for logs and progress; default: runs/, and the name of --out."""
    dry_run: bool = False
    """Check what can be checked without listing the source, show the batch script, and do nothing."""
    resources: Annotated[ArrayRequest, tyro.conf.arg(name="")] = ArrayRequest()


@dataclass(frozen=True)
class Prepare:
    """Build shards as `shards build` does, shared out among the nodes of a cluster; without Slurm, on this machine.
    `prepare index TARS` does the same with `shards index`."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "MY_PICTURES --out my-shards --nodes 8": "on 8 nodes",
            "s3://b/pictures --out s3://b/shards --dry-run": "only check",
        },
        everyday={
            "what": ("--out", "--size", "--labels", "--encode", "--deduplicate", "--resume"),
            "where": ("--nodes", "--time", "--partition", "--profile", "--run", "--dry-run"),
        },
    )

    build: Annotated[Build, tyro.conf.arg(name="")]
    jobs: Annotated[JobOptions, tyro.conf.arg(name="")] = JobOptions()

    @property
    def work(self) -> Work:
        """What is to be done."""
        return BuildWork(self.build)

    def adopting(self, arguments: Sequence[str]) -> Prepare:
        """Return the same with the settings of the dataset of --add, in place of those that the command line lacks."""
        if self.build.add is None:
            return self
        return replace(self, build=adopt_settings(self.build, options_given(arguments)))


@dataclass(frozen=True)
class PrepareIndex:
    """Index tars as `shards index` does, shared out among the nodes of a cluster; without Slurm, on this machine."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "s3://b/x-{0000..0099}.tar --out my-shards --nodes 8": "on 8 nodes",
        },
        everyday={
            "what": ("--out", "--size", "--labels", "--member", "--deduplicate", "--resume"),
            "where": ("--nodes", "--time", "--partition", "--profile", "--run", "--dry-run"),
        },
    )

    index: Annotated[IndexTars, tyro.conf.arg(name="")]
    jobs: Annotated[JobOptions, tyro.conf.arg(name="")] = JobOptions()

    @property
    def work(self) -> Work:
        """What is to be done."""
        return IndexWork(self.index)


def parse_prepare(arguments: Sequence[str]) -> Prepare | PrepareIndex:
    """Read a command line; on --help or a mistake, say what it takes, and exit."""
    parsed: Prepare | PrepareIndex
    if arguments[:1] == ["index"]:  # pictures in a folder of this name: ./index
        parsed = parse(PrepareIndex, arguments[1:], "python -m launcher prepare index")
    else:
        parsed = parse(Prepare, arguments, "python -m launcher prepare").adopting(arguments)
    return parsed
