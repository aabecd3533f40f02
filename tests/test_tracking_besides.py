"""What W&B is sent besides rows: what the run is, attempts, tables, artifacts, alerts, and which figures are best."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from shards.dataset.index import Index
from tests.test_tracking import sync
from tests.wandb_server import StoredRun, WandbServer
from trainer.config.config import Config
from trainer.config.groups import TrackingSettings
from trainer.config.recipes import recipe_config
from trainer.core.migration import with_schema
from trainer.runs import description
from trainer.runs.config_loading import write_config
from trainer.runs.journal import EventKind, Journal, event_row
from trainer.runs.run_folder import RunFolder
from trainer.tracking.alerts import alert_of
from trainer.tracking.attempt_rows import HOURS, TABLE, AttemptRows
from trainer.tracking.tracker import Identity, Tracker
from trainer.tracking.wandb_alerts import Alerts

SHA = "ab" * 32
SETTINGS = TrackingSettings("disabled", name="my paintings")


@dataclass
class Sent:
    """A run folder, and what the server has of it after two syncs."""

    folder: RunFolder
    server: WandbServer
    stored: StoredRun
    rows: list[dict[str, Any]]

    def config(self, name: str) -> Any:
        return json.loads(self.stored.fields["config"])[name]["value"]

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.stored.lines["wandb-summary.json"][-1])
        return found

    def table(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.stored.media[self.summary[name]["path"]])
        return found


def play_attempts(run: RunFolder) -> None:
    """Two attempts: the first is killed after 30 images, the second goes on from 20."""
    for start, stop in ((0, 30), (20, 50)):
        tracker = Tracker(run, SETTINGS)
        tracker.start(start, lost_images=10 * bool(start))
        for images_seen in range(start + 10, stop + 10, 10):
            tracker.system({"images_seen": images_seen, "images_per_s": 1.5})
            tracker.metrics({"images_seen": images_seen, "swd_512": 100.0 - images_seen % 50})
        if start:
            tracker.event(EventKind.CHECKPOINT_FAILED, problem="no space left on device")
            tracker.event(EventKind.CHECKPOINT_FAILED, problem="no space left on device")
            tracker.close("failed", problem="a rank has died")
        time.sleep(0.05)


def fill(run: RunFolder, data: Path) -> None:
    """Make a run folder as a run on a cluster leaves it."""
    config = replace(recipe_config("dcgan-64"), seed=7, data=data)
    write_config(run, config)
    described = Index.open(data)
    content = dict(described.content) | {"classes": ["cat", "dog"], "class_counts": [3, 5], "excluded": {"torn": 2}}
    description.write_description(run, config, replace(described, content=content))
    play_attempts(run)
    run.samples.mkdir()
    Image.new("RGB", (4, 4), "red").save(run.sample(40))
    code = run.code / "0001"
    code.mkdir(parents=True)
    (code / "origin.json").write_text(json.dumps({"from": "x", "commit": "c0ffee", "changed": True}))
    for name in ("000000000020-r00", "000000000040-r00"):
        (run.checkpoints / name).mkdir(parents=True)
        files = {"state.safetensors": {"bytes": 1, "sha256": SHA}}
        (run.checkpoints / name / "state.safetensors").write_bytes(b"x")
        (run.checkpoints / name / "manifest.json").write_text(json.dumps(with_schema({"files": files})))
    best = {"checkpoint": "000000000020-r00", "images_seen": 20, "column": "fid", "value": 3.5}
    run.best.write_text(json.dumps(with_schema(best)))
    evaluations = Journal(run.evaluations)
    for images_seen, fid in ((20, 3.5), (40, 9.0)):
        figures = {"fid": {"better": "lower", "value": fid, "low": fid - 1, "high": fid + 1}}
        evaluations.append(with_schema({"images_seen": images_seen, "seed_set": "select", "figures": figures}))
    evaluations.close()
    bundle = run.path / "bundle"
    bundle.mkdir()
    (bundle / "manifest.json").write_text("{}")
    exported = {"place": str(bundle), "checkpoint": "000000000020-r00", "images_seen": 20, "averaged": True}
    exports = Journal(run.exports)
    exports.append(with_schema(exported | {"fingerprint": SHA}))
    exports.append(with_schema(exported | {"fingerprint": SHA, "place": "/removed/since"}))
    exports.close()


@pytest.fixture(scope="module")
def sent(shards32: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sent]:
    """A run folder that was sent twice."""
    run = RunFolder(tmp_path_factory.mktemp("besides") / "paintings")
    fill(run, shards32)
    with pytest.MonkeyPatch.context() as patch, WandbServer() as server:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        server.use(patch)
        patch.setenv("HOME", str(run.path.parent))
        done = sync(run)
        assert done.returncode == 0, done.stderr
        uploaded = len(server.artifacts.versions)
        done = sync(run)
        assert "0 rows sent" in done.stdout
        assert len(server.artifacts.versions) == uploaded
        assert not server.unknown
        assert "not sent" not in done.stdout
        id = Identity.load(run.wandb_identity).segments[0].id
        yield Sent(run, server, server.runs[id], server.history(id))


def test_config_says_what_differs_from_the_recipe(sent: Sent) -> None:
    assert sent.config("recipe") == "dcgan-64"
    assert sent.config("changed") == {"seed": 7}


def test_config_leads_to_the_code_and_the_data(sent: Sent, shards32: Path) -> None:
    assert sent.config("code") == {"snapshot": str(sent.folder.code / "0001"), "commit": "c0ffee", "changed": True}
    dataset = sent.config("dataset")
    assert dataset["place"] == str(shards32)
    assert dataset["hash"] == Index.open(shards32).hash
    assert dataset["excluded"] == {"torn": 2}
    assert dataset["classes"] == {"class": 2}


def test_exclusions_and_balance_are_tables(sent: Sent) -> None:
    assert sent.table("data/excluded")["data"] == [["torn", 2]]
    assert sent.table("data/classes")["data"] == [["class", "dog", 5], ["class", "cat", 3]]


def test_each_row_says_which_attempt_made_it_and_when(sent: Sent) -> None:
    assert [(row["attempt/number"], row["attempt/images_seen"]) for row in sent.rows[:5]] == [
        (1, 10),
        (1, 20),
        (2, 30),
        (2, 40),
        (2, 50),
    ]
    hours = [row[HOURS] for row in sent.rows[:5]]
    assert hours == sorted(hours)
    assert 0 <= hours[0] < 0.01


def test_the_table_of_attempts_tells_how_each_ended(sent: Sent) -> None:
    table = sent.table("attempts")
    assert table["columns"] == TABLE
    ends = [(row[0], row[3], row[4], row[6], row[7]) for row in table["data"]]
    assert ends == [(1, 0, 0, "no word: killed", ""), (2, 20, 10, "failed", "a rank has died")]


def test_the_table_of_runs_shows_the_best_figures(sent: Sent) -> None:
    assert sent.summary["swd_512"] == {"min": 60.0, "last": 100.0}
    assert sent.summary["evaluation/select/fid"] == {"min": 3.5, "last": 9.0}
    assert sent.summary["images_seen"] == 50


def test_grids_have_captions(sent: Sent) -> None:
    (row,) = [row for row in sent.rows if "samples" in row]
    assert row["samples"]["caption"] == "40 images: real on the left, generated on the right"


def test_artifacts_are_references_each_once(sent: Sent, shards32: Path) -> None:
    found = {(one.type, one.name, frozenset(one.aliases)): one for one in sent.server.artifacts.versions}
    of_run = {key: one for key, one in found.items() if not one.type.startswith("run_table")}
    dataset, best, newest, bundle = (
        of_run["dataset", f"dataset-{Index.open(shards32).hash[:12]}", frozenset({"latest"})],
        of_run["checkpoint", "my-paintings-checkpoint", frozenset({"best", "images-20"})],
        of_run["checkpoint", "my-paintings-checkpoint", frozenset({"latest", "newest", "images-40"})],
        of_run["bundle", "my-paintings-bundle", frozenset({"latest", "images-20"})],
    )
    assert len(of_run) == 4
    assert all(one.committed for one in of_run.values())
    assert dataset.references == {"index.json": (shards32 / "index.json").as_uri()}
    assert len(dataset.used_by) == 1
    folder = sent.folder.checkpoints / "000000000020-r00"
    assert best.references == {name: (folder / name).as_uri() for name in ("manifest.json", "state.safetensors")}
    assert best.metadata == {"images_seen": 20, "sha256": {"state.safetensors": SHA}, "fid": 3.5}
    assert newest.made_by == best.made_by == bundle.made_by == dataset.used_by[0]
    assert bundle.metadata["checkpoint"] == "000000000020-r00"
    assert bundle.metadata["fingerprint"] == SHA


def test_what_the_owner_must_know_is_told_once(sent: Sent) -> None:
    told = [(alert["title"], alert["severity"]) for alert in sent.stored.alerts]
    assert told == [("A checkpoint was not written", "ERROR"), ("The run has failed", "ERROR")]
    assert "no space left on device" in sent.stored.alerts[0]["text"]
    assert "[paintings]" in sent.stored.alerts[0]["text"]


EVENTS: list[tuple[EventKind, dict[str, Any], str]] = [
    (EventKind.STALLED, {"problem": "no step for 300 s", "places": ["n1"]}, "no step for 300 s; silent: n1"),
    (EventKind.OUT_OF_MEMORY, {"problem": "rank 3"}, "rank 3"),
    (EventKind.DAMAGED_CHECKPOINT, {"name": "c", "problem": "torn"}, "c: torn; an earlier one is used"),
    (EventKind.EVALUATION_FAILED, {"problem": "p"}, "p"),
    (EventKind.ROLLBACK, {"why": "w", "from": 2000, "to": 10}, "w at 2,000 images: back to 10, with other draws"),
]


@pytest.mark.parametrize(("kind", "fields", "text"), EVENTS, ids=lambda value: str(value)[:12])
def test_faults_have_alerts(kind: EventKind, fields: dict[str, Any], text: str) -> None:
    alert = alert_of(event_row(kind, **fields))
    assert alert
    assert alert.text == text


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (EventKind.START, {}),
        (EventKind.CHECKPOINT, {"images_seen": 1}),
        (EventKind.END, {"outcome": "interrupted"}),
        (EventKind.COLLAPSE_ALARM, {"state": "warning", "problem": "p", "images_seen": 1, "picture": "a"}),
    ],
)
def test_what_is_in_order_has_none(kind: EventKind, fields: dict[str, Any]) -> None:
    assert alert_of(event_row(kind, **fields)) is None


def test_the_same_trouble_in_another_attempt_is_told_again(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    events = Journal(run.events)
    for _ in range(2):
        events.append(event_row(EventKind.START))
        for _ in range(2):
            events.append(event_row(EventKind.CHECKPOINT_FAILED, problem="full"))
    alerts = Alerts(run)
    alerts.send(None)
    assert len(alerts.waiting) == 2
    alerts.close()
    events.close()


def test_the_cluster_knows_why_an_attempt_ended(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    events = Journal(run.events)
    events.append({"time": "2026-01-01T10:00:00.000+00:00", "kind": "start", "images_seen": 0})
    events.append({"time": "2026-01-01T12:00:00.000+00:00", "kind": "start", "images_seen": 64, "lost_images": 32})
    cause = {"began": "2026-01-01T09:59:00.000+00:00", "ended": "2026-01-01T11:00:00.000+00:00", "cause": "preempted"}
    attempts = Journal(run.attempts)
    attempts.append(cause)
    rows = AttemptRows(run)
    rows.read()
    assert [row[2:] for row in rows.table()] == [
        [0.0, 0, 0, "", "no word: killed", "preempted"],
        [2.0, 64, 32, "", "goes on", ""],
    ]
    assert rows.columns(96, 1767268800.0 + 1800) == {HOURS: 2.5, "attempt/number": 2, "attempt/images_seen": 96}
    assert rows.columns(96, None) == {}
    for file in (events, attempts, rows):
        file.close()


def test_settings_without_a_recipe_differ_from_the_defaults() -> None:
    assert description.changed_from_recipe(Config(recipe="custom", seed=3)) == {"seed": 3}
    assert description.changed_from_recipe(recipe_config("wgan-gp-32")) == {}
