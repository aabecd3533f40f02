"""The saved W&B workspace: its panels are of columns that runs write, and saving it again replaces it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher.__main__ import main
from launcher.cli import workspace
from launcher.cli.workspace import Workspace, run_workspace
from tests.conftest import HOME
from tests.wandb_server import WandbServer
from trainer.config.groups import TrackingSettings
from trainer.core.fields import Refused
from trainer.core.step_phases import PHASES
from trainer.gan.step import D_SCALARS, G_SCALARS
from trainer.losses.penalties import Penalties
from trainer.metrics import METRICS
from trainer.runs.run_folder import RunFolder
from trainer.tracking.attempt_rows import HOURS
from trainer.tracking.evaluation_rows import AXIS
from trainer.tracking.gpu_figures import nvidia_queries
from trainer.tracking.stalls import CAUSES
from trainer.tracking.system_figures import Counters
from trainer.tracking.tracker import Identity
from trainer.tracking.workspace_panels import SECTIONS, Panel, markdown_table
from trainer.training.sample_grids import DISTANCE

TWICE = "import sys; from launcher.__main__ import main; sys.exit(main(sys.argv[1:]) or main(sys.argv[1:]))"
PANELS = [panel for panels in SECTIONS.values() for panel in panels]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    Identity.create(folder, TrackingSettings(project="paintings")).save(folder.wandb_identity)
    return folder


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WandbServer]:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with WandbServer() as server:
        server.use(monkeypatch)
        yield server


def test_saved_twice_it_is_one_workspace_with_all_panels(server: WandbServer, run: RunFolder) -> None:
    command = [sys.executable, "-c", TWICE, "workspace", str(run.path)]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{server.url}/tester/paintings?nw=lienzo"] * 2
    (view,) = server.views.values()
    assert view["displayName"] == "lienzo"
    bank = json.loads(view["spec"])["section"]["panelBankConfig"]
    assert {section["name"]: len(section["panels"]) for section in bank["sections"]} == {
        name: len(panels) for name, panels in SECTIONS.items()
    }
    panels = [panel for section in bank["sections"] for panel in section["panels"]]
    for panel, saved in zip(PANELS, panels, strict=True):
        assert all(json.dumps(column)[1:-1] in json.dumps(saved) for column in panel.columns), panel
    lines = [panel["config"] for panel in panels if "Line" in panel["viewType"]]
    assert {line["xAxis"] for line in lines} == {"images_seen", AXIS, HOURS}
    assert [line["plotType"] for line in lines if line["chartTitle"].startswith("Where")] == ["stacked-area"]


def known_columns() -> set[str]:
    """The columns that the code writes."""
    counters = Counters(0, 0, 0, 0, 0, 0, 0, 0, 0)
    later = Counters(1, 1, 1, 1, 1, 1, 1, 1, 1)
    gpu = nvidia_queries(SimpleNamespace(nvmlDeviceGetTemperature=print, NVML_TEMPERATURE_GPU=0), None)
    of_nodes = {*later.rates_since(counters), "memory_used_mb", *(f"gpu/3/{name}" for name in gpu)}
    figures = {figure for metric in METRICS.values() for figure in metric.better}
    return {
        *(name for name in (*D_SCALARS, *G_SCALARS)),
        *(field.name for field in fields(Penalties)),
        *(f"system/time/{name}" for name in (*PHASES, "other")),
        *(f"system/stall/{name}" for name in CAUSES),
        *(f"system/node-12/{name}" for name in of_nodes),
        *(f"evaluation/select/{name}_5k/inception{end}" for name in figures for end in ("", "/low", "/high")),
        f"swd_{DISTANCE}",
    }


WRITTEN_ELSEWHERE = {
    **{"grad_norm_d": "gan/network_update.py", "grad_norm_g": "gan/network_update.py"},
    **{
        "augment_p": "augment/pipeline.py",
        "samples": "tracking/wandb_run.py",
        "collapse/picture": "tracking/wandb_run.py",
    },
    **{"collapse/health": "collapse/judgement.py", "attempts": "tracking/wandb_besides.py"},
    **{f"collapse/{name}": "collapse/collapse_metrics.py" for name in ("diversity", "coverage", "similarity")},
    **{f"collapse/{name}": "collapse/collapse_metrics.py" for name in ("distance_to_data", "classes")},
    **{"system/images_per_s": "tracking/console.py", "system/peak_memory_mb": "tracking/console.py"},
    **{f"attempt/{name}": "tracking/attempt_rows.py" for name in ("images_seen", "number")},
    **{f"data/{name}": "tracking/wandb_config.py" for name in ("excluded", "classes")},
}
"""Columns without a list in the code, and the file that spells their last part."""


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_panels_are_of_columns_that_runs_write(panel: Panel) -> None:
    if panel.pattern:
        assert any(re.match(panel.pattern, column) for column in known_columns()), panel.pattern
        return
    for column in panel.columns:
        if column in WRITTEN_ELSEWHERE:
            text = (HOME / "trainer" / WRITTEN_ELSEWHERE[column]).read_text()
            assert re.sub("^grad_norm_[dg]$", "grad_norm_", column.rpartition("/")[2]) in text
        else:
            assert column in known_columns(), column


def test_every_figure_and_penalty_has_a_panel() -> None:
    patterns = [panel.pattern for panel in PANELS if panel.pattern]
    figures = [figure for metric in METRICS.values() for figure in metric.better if figure != "swd"]
    columns = [*(field.name for field in fields(Penalties)), *(f"evaluation/report/{name}_50k/x" for name in figures)]
    assert len(columns) > 20
    for column in columns:
        assert sum(bool(re.match(pattern, column)) for pattern in patterns) == 1, column


def test_the_documentation_has_each_panel() -> None:
    assert markdown_table() in (HOME / "docs" / "tracking.md").read_text()


def test_what_it_needs_is_said(run: RunFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert main(["workspace", str(tmp_path)]) == 2
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Refused, match=r"no W&B key for .* wandb login"):
        run_workspace(Workspace(run.path))
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(Refused, match=r"pip install 'lienzo\[workspace\]'"):
        workspace.library()
