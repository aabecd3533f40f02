"""`launcher report`: all that is known of runs, or of a study, as one page to look at and to send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tyro

from command_line.help_page import HelpPage
from launcher.jobs import runs
from launcher.pages.markup import Markup
from launcher.report.making import make_pictures
from launcher.report.page import MOST_RUNS, build_report, write_report
from launcher.report.run_facts import gather_runs
from launcher.study.folder import StudyFolder
from trainer.core.fields import Refused
from trainer.runs.run_folder import RunFolder

NAME = "report.html"


@dataclass(frozen=True)
class Report:
    """Write one HTML page about runs, or a study: pictures through time, losses, metrics, faults, cost, settings.

    It holds all it shows, so it can be sent; nothing is trained, and a run may go on meanwhile."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "runs/NAME": "its page is runs/NAME/report.html",
            "runs/ONE runs/OTHER --out both.html": "side by side",
            "runs/NAME --pictures": "with the nearest of the data",
        },
    )

    subjects: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run folders, shown side by side; or the folder of one study."""
    out: Path | None = None
    """The page to write; default: report.html in the folder of the run or study; of several runs, here."""
    pictures: bool = False
    """Have generators make what is not there: the nearest pictures of the data, and a way from picture to picture."""


def run_report(args: Report) -> int:
    """Carry out `report`.

    Raises:
        Refused: there is no such run or study, or the page cannot be written; nothing is.
    """
    if not args.subjects:
        raise Refused("name run folders, or that of a study; python -m launcher status lists the runs")
    study = StudyFolder(args.subjects[0]) if StudyFolder(args.subjects[0]).plan.exists() else None
    if study and len(args.subjects) > 1:
        raise Refused(f"{study.path} is a study, which has a page of its own: name it alone, or name its runs")
    found = study_runs(study) if study else named_runs(args.subjects)
    if args.pictures:
        for run in found:
            make_pictures(run)
    if study:
        out, page = args.out or study.path / NAME, study_page(study, found)
    else:
        out = args.out or (found[0].path / NAME if len(found) == 1 else Path(NAME))
        page = build_report(gather_runs(found))
    write_report(page, out)
    print(f"{len(page.encode()) / 1e6:.1f} MB: {out}")
    return 0


def named_runs(paths: Sequence[Path]) -> list[RunFolder]:
    """Return the runs that are named, each once.

    Raises:
        Refused: there is no such run, or there are too many for a page.
    """
    found = {path.resolve(): runs.existing_run(path) for path in paths}
    if len(found) > MOST_RUNS:
        raise Refused(f"{len(found)} runs are too many to be looked at side by side: name at most {MOST_RUNS}")
    return [*found.values()]


def study_runs(study: StudyFolder) -> list[RunFolder]:
    """Return a run of each arm that has begun, of its first seed."""
    from launcher.study.plan import StudyPlan

    plan, found = StudyPlan.open(study), dict[str, RunFolder]()
    for stage in plan.stages():
        for task in stage:
            if task.seed_set == "report" and task.run.config.exists():
                found.setdefault(task.arm, task.run)
    return [*found.values()][:MOST_RUNS]


def study_page(study: StudyFolder, found: Sequence[RunFolder]) -> str:
    """Return the page of a study: what it concludes, then a run of each arm."""
    from launcher.study.analysis.comparison import compare_arms
    from launcher.study.collect import collect_results
    from launcher.study.plan import StudyPlan
    from launcher.study.report.page import study_parts

    results = collect_results(StudyPlan.open(study))
    before: list[Markup] = study_parts(results, compare_arms(results), study.path)
    return build_report(gather_runs(found), before, f"{results.name}: study")
