"""A dataset that several jobs can make: by `shards build`, or by `shards index`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol

from shards.building import share as building
from shards.building.build import WORK, run_build
from shards.building.interruption import Interruption
from shards.building.options import Build
from shards.building.share import ListedWork
from shards.building.share_results import Share
from shards.indexing import share as indexing
from shards.indexing.command import run_index
from shards.indexing.options import IndexTars
from shards.indexing.patterns import find_tars
from shards.storage.place import Place, Url


class Work(Protocol):
    """A dataset that several jobs can make."""

    kind: ClassVar[str]
    unit: ClassVar[str]
    """What is counted."""

    @property
    def out(self) -> Place:
        """Where the dataset will be."""

    @property
    def work_folders(self) -> Sequence[Path]:
        """The folders of what is unfinished, which all nodes must see."""

    @property
    def sources(self) -> Sequence[Place]:
        """What is read."""

    @property
    def resume(self) -> bool:
        """Whether it goes on with what is unfinished."""

    def in_folder(self, folder: Path, resume: bool) -> Work:
        """Return the same, with what is unfinished in a folder unless that is decided already; `resume` goes on."""

    def run_here(self) -> int:
        """Make it on this machine, and return the exit code."""

    def list_tasks(self, interruption: Interruption) -> ListedWork | None:
        """Return what is to be done; None: it is complete."""

    def make_share(self, share: Share, interruption: Interruption, tell: Callable[[int], None]) -> None:
        """Make a share; `tell` is called with what is left of it."""

    def finish(self, interruption: Interruption) -> None:
        """Complete the dataset."""


@dataclass(frozen=True)
class BuildWork:
    """`shards build`, by several jobs."""

    args: Build
    kind: ClassVar[str] = "build"
    unit: ClassVar[str] = "pictures"

    @property
    def out(self) -> Place:
        """Where the dataset will be."""
        return self.args.out

    @property
    def work_folders(self) -> Sequence[Path]:
        """The folders of what is unfinished."""
        return building.work_folders(self.args)

    @property
    def sources(self) -> Sequence[Place]:
        """What is read."""
        return self.args.sources if self.args.add is None else (*self.args.sources, self.args.add)

    @property
    def resume(self) -> bool:
        """Whether it goes on with what is unfinished."""
        return self.args.resume

    def in_folder(self, folder: Path, resume: bool) -> BuildWork:
        """Return the same with --resume, and with --work in a folder if --out is a URL."""
        # Not ~/.cache, where a build on one machine has it: other nodes may not see that.
        work = self.args.work or (folder.absolute() / "work" if isinstance(self.out, Url) else None)
        return BuildWork(replace(self.args, work=work, resume=self.args.resume or resume))

    def run_here(self) -> int:
        """Build on this machine."""
        return run_build(self.args)

    def list_tasks(self, interruption: Interruption) -> ListedWork | None:
        """List the source."""
        return building.list_tasks(self.args, interruption)

    def make_share(self, share: Share, interruption: Interruption, tell: Callable[[int], None]) -> None:
        """Make the shards of a share."""
        building.build_share(self.args, share, interruption, tell)

    def finish(self, interruption: Interruption) -> None:
        """Put the shards together."""
        building.finish_shares(self.args, interruption)


@dataclass(frozen=True)
class IndexWork:
    """`shards index`, by several jobs."""

    args: IndexTars
    kind: ClassVar[str] = "index"
    unit: ClassVar[str] = "tars"

    @property
    def out(self) -> Place:
        """Where the dataset will be."""
        return self.args.out

    @property
    def work_folders(self) -> Sequence[Path]:
        """The folder of what is unfinished."""
        return (self.args.out / WORK,)

    @property
    def sources(self) -> Sequence[Place]:
        """What is read."""
        return (find_tars(self.args.tars).root,)

    @property
    def resume(self) -> bool:
        """Whether it goes on with what is unfinished."""
        return self.args.resume

    def in_folder(self, folder: Path, resume: bool) -> IndexWork:
        """Return the same with --resume."""
        return IndexWork(replace(self.args, resume=self.args.resume or resume))

    def run_here(self) -> int:
        """Index on this machine."""
        return run_index(self.args)

    def list_tasks(self, interruption: Interruption) -> ListedWork | None:
        """Find the tars."""
        return indexing.list_tars(self.args)

    def make_share(self, share: Share, interruption: Interruption, tell: Callable[[int], None]) -> None:
        """Index a share of the tars."""
        indexing.index_share(self.args, share, interruption, tell)

    def finish(self, interruption: Interruption) -> None:
        """Put together what is known of the tars."""
        indexing.finish_index(self.args, interruption)
