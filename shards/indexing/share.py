"""An indexing that several jobs share: one lists the tars, each indexes its share of them, and one finishes.

As in shards.building.share, the result is that of `index_tars`, to the byte.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

from shards.building.build import WORK, lock_folder, open_work_folders
from shards.building.interruption import Interruption
from shards.building.share import ListedWork, OpenTask
from shards.building.share_results import Share, merge_shares
from shards.indexing.command import DATABASE, Maker, index_tars, unfinished_tars
from shards.indexing.options import IndexTars, indexer_of, settings_of
from shards.indexing.patterns import Tars, find_tars
from shards.indexing.progress import TarProgress
from shards.indexing.tar_db import RESULTS, TarDb
from shards.storage.place import Url
from shards.storage.storage import open_storage


def list_tars(args: IndexTars) -> ListedWork | None:
    """Find the tars, and return what is to be done; None: the dataset is complete.

    Raises:
        DataError: the arguments, the tars or the folder do not allow it.
        BuildStopped: the disk does not do its work.
    """
    if not (unfinished := unfinished_tars(args)):
        return None
    tars, settings = unfinished
    work = args.out / WORK
    with open_work_folders([args.out], DATABASE), closing(TarDb(work / DATABASE, tars, settings)) as db:
        merge_shares(db.database, work, RESULTS)
        sizes = sizes_of(tars)
        return ListedWork(len(tars.names), [OpenTask(task.number, 1, sizes[task.name]) for task in db.open_tasks()])


def sizes_of(tars: Tars) -> dict[str, int]:
    """Return the bytes of each tar by its name.

    Raises:
        StorageError: its storage does not answer.
        OSError: it cannot be looked at.
    """
    if not isinstance(tars.root, Url):
        return {name: (tars.root / name).stat().st_size for name in tars.names}
    # One listing, as a question for each tar would take tens of milliseconds.
    listed = {found.name: found.size for found in open_storage(tars.root).list()}
    return {name: listed.get(name, 0) for name in tars.names}


def index_share(args: IndexTars, share: Share, interruption: Interruption, tell: Callable[[int], None]) -> None:
    """Index the tars of a share.

    Args:
        args: of the indexing.
        share: of the tars.
        interruption: ends it.
        tell: called at the beginning, and after each tar, with those that are left.

    Raises:
        DataError: the tars are not those of the listing, or somebody else is at work in the folder.
        BuildStopped: interrupted, or a tar cannot be read.
    """
    work, tars = args.out / WORK, find_tars(args.tars)
    with lock_folder(work, shared=True), closing(TarDb(work / DATABASE, tars, settings_of(args), share)) as db:
        tasks = db.open_tasks()
        left = len(tasks)
        tell(left)

        def on_result() -> None:
            nonlocal left
            left -= 1
            tell(left)

        progress = TarProgress(len(share.tasks), left)
        on_tick = interruption.check_before(progress.show)
        Maker(db, indexer_of(args, tars, work), progress, on_tick, on_result).run(tasks, args.workers)


def finish_index(args: IndexTars, interruption: Interruption) -> None:
    """Complete the dataset of which all shares are indexed, and print its summary."""
    index_tars(replace(args, resume=True), interruption)
