"""What there is of a study, written into its folder and shown on the terminal.

It stands between analysis and report, which do not know run folders, and those who publish: `launcher study`, and the
end of a task (advance.py).
"""

from __future__ import annotations

from rich.console import RenderableType

from launcher.study.analysis import results
from launcher.study.analysis.comparison import compare_arms
from launcher.study.collect import collect_results
from launcher.study.folder import WAIT_S
from launcher.study.plan import StudyPlan
from launcher.study.report import export, page


def write_report(plan: StudyPlan) -> RenderableType:
    """Write results, conclusions and page, each at once or not at all; return what a terminal shows.

    Raises:
        Refused: another process does not come to an end of that.
    """
    with plan.folder.held("report", WAIT_S):  # who collects later writes later
        found = collect_results(plan)
        concluded = compare_arms(found)
        results.write_results(found, plan.folder.results)
        export.write_conclusions(found, concluded, plan.folder.conclusions)
        export.write_csv(found, plan.folder.table)
        page.write_page(found, plan.folder.page)
    return export.terminal_view(found, concluded)
