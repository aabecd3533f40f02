"""`lienzo workspace RUN`: save the workspace that shows what runs do in the run's W&B project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from command_line.help_page import HelpPage
from launcher.cli.sync import print_problem
from trainer.config.wandb_environment import has_key, import_wandb, server_url
from trainer.core.fields import Refused
from trainer.runs.run_folder import RunFolder
from trainer.tracking.mirror_process import one_line
from trainer.tracking.tracker import Identity
from trainer.tracking.workspace_panels import SECTIONS, Panel

VIEW = "lienzo"  # in its address, so that saving it again replaces it


@dataclass(frozen=True)
class Workspace:
    """Save a workspace of panels in a run's W&B project; it shows all runs there. Saved again, it is replaced."""

    help_page: ClassVar[HelpPage] = HelpPage(examples={"runs/NAME": "panels for all runs of its project"})

    run: Annotated[Path, tyro.conf.Positional]
    """the run folder"""
    entity: str | None = None
    """W&B user or team; the run's by default"""


def run_workspace(arguments: Workspace) -> int:
    """Carry out the command; its exit code.

    Raises:
        Refused: there is no such run, no library, or no key.
    """
    run = RunFolder(arguments.run)
    if not run.wandb_identity.exists():
        raise Refused(f"{arguments.run} is not a run folder: it has no {run.wandb_identity.name}")
    if not has_key():
        raise Refused(f"no W&B key for {server_url()}: set WANDB_API_KEY, or run: wandb login")
    wandb = import_wandb()
    library()
    identity = Identity.load(run.wandb_identity)
    try:
        entity = arguments.entity or identity.entity or wandb.Api().default_entity
        url = save(entity, identity.project)
    except Exception as error:  # the failures of W&B and its libraries have many types
        return print_problem(f"W&B at {server_url()} has not saved the workspace: {one_line(error)}", of="workspace")
    print(url)
    return 0


def library() -> tuple[Any, Any]:
    """Return wandb_workspaces: its workspaces, and its panels.

    Raises:
        Refused: it is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
    except ImportError:
        raise Refused("a workspace needs wandb-workspaces: pip install 'lienzo[workspace]'") from None
    return workspaces, reports


def save(entity: str, project: str) -> str:
    """Save the workspace in a project; return its address."""
    workspaces, reports = library()
    try:
        made = workspaces.Workspace.from_url(f"{server_url()}/{entity}/{project}?nw={VIEW}")
    except ValueError:  # it was never saved, or by a version that this one cannot read
        made = workspaces.Workspace(entity=entity, project=project, auto_generate_panels=False)
        made._internal_name = f"nw-{VIEW}-v"  # else it gets a new name each time, by which nobody finds it
    made.name = "lienzo"
    made.sections = [
        workspaces.Section(name=name, panels=[make_panel(panel, reports) for panel in panels], is_open=True)
        for name, panels in SECTIONS.items()
    ]
    made.settings = workspaces.WorkspaceSettings(x_axis="images_seen")
    made.save()
    return str(made.url)


def make_panel(panel: Panel, reports: Any) -> Any:
    """Return a panel as W&B's library has it."""
    match panel.kind:
        case "media":
            return reports.MediaBrowser(title=panel.title, media_keys=[*panel.columns], num_columns=1)
        case "table":
            return reports.WeavePanelSummaryTable(table_name=panel.columns[0])
    chosen = {"metric_regex": panel.pattern} if panel.pattern else {"y": [*panel.columns]}
    plot = "stacked-area" if panel.kind == "area" else "line"
    return reports.LinePlot(title=panel.title, x=panel.axis, log_y=panel.log or None, plot_type=plot, **chosen)
