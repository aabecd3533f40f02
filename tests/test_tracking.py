"""W&B as a mirror of the run folder: real wandb, real processes, real kills, a server that keeps what was posted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from tests.wandb_server import KEY, WandbServer
from trainer.config.groups import TrackingSettings
from trainer.core.migration import with_schema
from trainer.runs import journal
from trainer.runs.journal import EventKind
from trainer.runs.run_folder import RunFolder
from trainer.tracking.tracker import Identity

ROOT = Path(__file__).parent.parent
SYNC = "import sys, tyro; from launcher.cli.sync import Sync, run_sync; sys.exit(run_sync(tyro.cli(Sync)))"

started: list[subprocess.Popen[bytes]] = []

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without a key, and a wandb that posts every second."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    settings = {"INIT_TIMEOUT": "4", "FINISH_TIMEOUT": "4", "_FILE_STREAM_TRANSMIT_INTERVAL": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    with WandbServer() as server:
        server.use(monkeypatch)
        yield server
        assert not server.unknown


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    """A run folder, of whose processes none may be left at the end."""
    folder = RunFolder(tmp_path / "paintings")
    folder.path.mkdir()
    folder.config.write_text(json.dumps({"recipe": "dcgan-64", "data": {"size": 64}}))
    yield folder
    while started:
        with started.pop() as process:
            process.kill()
    wait_until(lambda: not mirrors(folder), 10)


def mirrors(run: RunFolder) -> list[psutil.Process]:
    """The mirrors of this run, and wandb's processes under them."""
    found = [
        process
        for process in psutil.process_iter(["cmdline"])
        if "trainer.tracking.wandb_uploader" in (process.info["cmdline"] or [])
        and str(run.path) in process.info["cmdline"]
    ]
    return [process for one in found for process in [one, *one.children(recursive=True)]]


def wait_until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def play(run: RunFolder, **options: object) -> subprocess.Popen[bytes]:
    """Start a process that plays the trainer, as `python -m tests.tracked_run`."""
    flags = [text for key, value in options.items() for text in (f"--{key.replace('_', '-')}", *str(value).split())]
    started.append(subprocess.Popen([sys.executable, "-m", "tests.tracked_run", str(run.path), *flags], cwd=ROOT))
    return started[-1]


def finish(run: RunFolder, **options: object) -> None:
    assert play(run, **options).wait(60) == 0


def sync(run: RunFolder | Path, *flags: str) -> subprocess.CompletedProcess[str]:
    path = run.path if isinstance(run, RunFolder) else run
    # wandb leaves the folders of its artifacts to the garbage collector, which says so.
    warnings = ("-W", "error", "-W", "ignore:Implicitly cleaning up:ResourceWarning")
    command = [sys.executable, *warnings, "-c", SYNC, str(path), *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def ids(run: RunFolder) -> list[str]:
    return [segment.id for segment in Identity.load(run.wandb_identity).segments]


def mirrored(server: WandbServer, run_id: str) -> list[dict[str, Any]]:
    """What W&B holds of a run's deterministic columns."""
    return [{key: row[key] for key in ("images_seen", "d/loss")} for row in server.history(run_id)]


def recorded(run: RunFolder) -> list[dict[str, Any]]:
    return list(journal.read_rows(run.metrics))


def assert_complete(server: WandbServer, run: RunFolder, stop: int = 400) -> None:
    """Strictly rising, none missing, none double, and the same figures as in the run folder."""
    seen = [row["images_seen"] for row in mirrored(server, ids(run)[0])]
    assert seen == list(range(10, stop + 10, 10))
    assert mirrored(server, ids(run)[0]) == recorded(run)


def assert_complete_after_kill(server: WandbServer, run: RunFolder, trainer: subprocess.Popen[bytes]) -> None:
    """Kill the trainer; what its journal holds must arrive, and the mirror end by itself."""
    assert trainer.poll() is None
    trainer.kill()
    wait_until(lambda: not mirrors(run))
    assert_complete(server, run, stop=recorded(run)[-1]["images_seen"])


def test_online(server: WandbServer, run: RunFolder) -> None:
    finish(run)
    assert_complete(server, run)
    stored = server.runs[ids(run)[0]]
    assert stored.exit_code == 0
    assert stored.fields["displayName"] == "paintings"
    assert json.loads(stored.fields["config"])["data"]["value"] == {"size": 64}
    pictures = {row["images_seen"]: row["samples"]["path"] for row in server.history(ids(run)[0]) if "samples" in row}
    assert list(pictures) == [100, 200, 300, 400]
    for images_seen, path in pictures.items():
        assert stored.media[path] == run.sample(images_seen).read_bytes()
    assert all(row["system/images_per_s"] == 1.5 for row in server.history(ids(run)[0]))
    assert [row["system/row"] for row in server.history(ids(run)[0])] == list(range(1, 41))
    files = [path for path in run.path.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if KEY.encode() in path.read_bytes()]  # no secret enters the run folder


@pytest.mark.parametrize("killed", ["everything", "trainer", "service"])
def test_two_kills_online(server: WandbServer, run: RunFolder, killed: str) -> None:
    start = 0
    for _ in range(2):
        trainer = play(run, start=start, stop=10_000, row_s=0.05)
        wait_for_more(server, run, 5)
        for process in victims(run, trainer, killed):
            process.kill()
        if killed == "service":
            wait_for_more(server, run, 1)
            trainer.kill()
        trainer.wait()
        start = checkpoint_before(run)
    finish(run, start=start, stop=start + 200)
    assert_complete(server, run, stop=start + 200)


def victims(run: RunFolder, trainer: subprocess.Popen[bytes], killed: str) -> list[psutil.Process]:
    if killed == "trainer":
        return [psutil.Process(trainer.pid)]
    wait_until(lambda: len(mirrors(run)) >= 2)
    if killed == "service":
        return [process for process in mirrors(run) if process.name() == "wandb-core"]
    return [psutil.Process(trainer.pid), *mirrors(run)]


def checkpoint_before(run: RunFolder) -> int:
    """Where training goes on after a kill: behind the journal, and behind what W&B has."""
    return max(0, int(recorded(run)[-1]["images_seen"]) - 100)


def wait_for_more(server: WandbServer, run: RunFolder, rows: int) -> None:
    before = len(mirrored_of_first(server, run))
    wait_until(lambda: len(mirrored_of_first(server, run)) >= before + rows)


def mirrored_of_first(server: WandbServer, run: RunFolder) -> list[dict[str, Any]]:
    return mirrored(server, ids(run)[0]) if run.wandb_identity.exists() else []


def test_rows_posted_without_their_summary_are_not_sent_again(server: WandbServer, run: RunFolder) -> None:
    finish(run, stop=200)
    lines = server.runs[ids(run)[0]].lines
    summary = json.loads(lines["wandb-summary.json"][0])
    assert summary["images_seen"] == summary["_step"] == 200
    lines["wandb-summary.json"] = [json.dumps(summary | {"images_seen": 50, "_step": 50})]
    finish(run, start=100)
    assert_complete(server, run)


def test_two_kills_offline_then_sync_and_sync_again(server: WandbServer, run: RunFolder) -> None:
    start = 0
    for fragments in (1, 2):
        trainer = play(run, start=start, stop=10_000, row_s=0.05, mode="offline")
        wait_until(lambda least=fragments: len([*filter(None, fragment_rows(run))]) >= least)  # type: ignore[misc]
        for process in victims(run, trainer, "everything"):
            process.kill()
        trainer.wait()
        start = checkpoint_before(run)
    stop = start + 200
    finish(run, start=start, stop=stop, mode="offline")
    assert not server.requests
    in_fragments = fragment_rows(run)
    assert len([fragment for fragment in in_fragments if fragment]) == 3
    assert [seen for fragment in in_fragments for seen in fragment] == list(range(10, stop + 10, 10))

    first, second = sync(run), sync(run)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert f"{ids(run)[0]}: {stop // 10} rows sent, complete up to images_seen {stop}" in first.stdout
    assert f"{ids(run)[0]}: 0 rows sent, complete up to images_seen {stop}" in second.stdout
    assert_complete(server, run, stop=stop)
    assert len(server.runs[ids(run)[0]].media) >= 4


def fragment_files(run: RunFolder) -> list[Path]:
    return sorted(run.wandb.glob("offline-run-*/*.wandb"))


def fragment_rows(run: RunFolder) -> list[list[int]]:
    """The `images_seen` in wandb's offline fragments, read by wandb's own reader."""
    fragments = []
    for path in fragment_files(run):
        command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(path)]
        private = os.environ | {"WANDB_ERROR_REPORTING": "false"}
        lines = subprocess.run(command, env=private, capture_output=True, text=True, check=False).stdout.splitlines()
        records = [json.loads(line) for line in lines]
        fragments.append([record["history"]["item"]["images_seen"] for record in records if "history" in record])
    return fragments


def test_server_dead_at_the_start_comes_up(server: WandbServer, run: RunFolder) -> None:
    server.stop()
    trainer = play(run, stop=10_000, row_s=0.05)
    wait_until(lambda: "next try" in (run.wandb / "uploader.log").read_text() if run.wandb.exists() else False)
    server.start()
    wait_for_more(server, run, 1)
    assert_complete_after_kill(server, run, trainer)
    assert len(list((run.wandb / "online" / "wandb").glob("run-*"))) == 1  # not one for each try


def test_server_fails_in_the_middle_and_recovers(server: WandbServer, run: RunFolder) -> None:
    trainer = play(run, stop=10_000, row_s=0.05)
    for status in (500, 429):
        wait_for_more(server, run, 1)
        server.status = status
        time.sleep(0.7)
        server.status = 200
    wait_for_more(server, run, 1)
    assert_complete_after_kill(server, run, trainer)


@pytest.mark.parametrize("fault", ["dead", "slow", "401"])
def test_training_never_waits_for_a_faulty_server(server: WandbServer, run: RunFolder, fault: str) -> None:
    if fault == "dead":
        server.stop()
    server.delay_s = 20.0 if fault == "slow" else 0.0
    server.status = 401 if fault == "401" else 200
    begun = time.monotonic()
    finish(run, close_s=1.0)
    assert time.monotonic() - begun < 5
    assert len(recorded(run)) == 40
    wait_until(lambda: not mirrors(run), 2)


def test_a_rollback_goes_to_a_new_run_of_the_same_group(server: WandbServer, run: RunFolder) -> None:
    finish(run, rollback="1000 200", row_s=0.05, stop=400)
    first, second = ids(run)
    rows, sent = recorded(run), mirrored(server, first)
    assert [row["images_seen"] for row in rows] == list(range(10, 410, 10))
    assert sent[:20] == rows[:20]
    # What was sent before the rollback stays, what was not is no longer sent.
    assert 20 < len(sent) <= 100
    assert [row["images_seen"] for row in sent] == list(range(10, 10 * len(sent) + 10, 10))
    assert mirrored(server, second) == rows[20:]
    fields = server.runs[second].fields
    assert fields["groupName"] == server.runs[first].fields["groupName"]
    assert fields["notes"] == f"continues {first} from images_seen 200: d/loss became NaN"
    assert json.loads(fields["config"])["continues"]["value"] == first


def test_sync_of_a_run_with_a_rollback(server: WandbServer, run: RunFolder) -> None:
    finish(run, rollback="400 200", mode="disabled")
    first, second = ids(run)
    assert not run.wandb.exists()
    done = sync(run)
    assert done.returncode == 0, done.stderr
    assert mirrored(server, first) == recorded(run)[:20]
    assert mirrored(server, second) == recorded(run)[20:]


def test_sync_follows_a_run_until_its_end(server: WandbServer, run: RunFolder) -> None:
    trainer = play(run, row_s=0.06, mode="offline")
    wait_until(run.wandb_identity.exists)
    done = sync(run, "--follow")
    assert done.returncode == 0, done.stderr
    assert len(recorded(run)) == 40
    assert_complete(server, run)
    assert trainer.wait(20) == 0
    assert "0 rows sent" in sync(run, "--follow").stdout


def test_sync_follow_ends_cleanly_on_interrupt(server: WandbServer, run: RunFolder) -> None:
    finish(run, stop=200, mode="disabled", outcome="interrupted")
    command = [sys.executable, "-c", SYNC, str(run.path), "--follow"]
    following = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: mirrored_of_first(server, run))
    following.send_signal(signal.SIGINT)
    errors = following.communicate(timeout=20)[1]
    assert following.returncode == 130
    assert errors.splitlines()[-1] == "lienzo sync: stopped; the same command sends the rest"
    assert_complete(server, run, stop=200)


def test_no_two_processes_send_one_run(server: WandbServer, run: RunFolder) -> None:
    trainer = play(run, stop=10_000, row_s=0.05)
    wait_for_more(server, run, 1)
    done = sync(run)
    assert done.returncode == 1
    assert "another process is sending" in done.stderr
    assert_complete_after_kill(server, run, trainer)


def test_sync_says_what_is_wrong(server: WandbServer, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(run, stop=50, mode="disabled")

    def complaint(path: RunFolder | Path = run) -> str:
        done = sync(path)
        assert done.returncode == 1
        return done.stderr.splitlines()[-1]

    assert complaint(run.path / "nowhere").endswith("nowhere is not a run folder: it has no wandb.json")
    server.status = 401
    assert "error 401" in complaint()
    server.status = 200
    server.refuse_rows = 403
    assert "has kept the rows up to images_seen -1 only, of 50" in complaint()
    server.stop()
    assert "connection refused" in complaint()
    monkeypatch.delenv("WANDB_API_KEY")
    assert complaint() == f"lienzo sync: no W&B key for {server.url}: set WANDB_API_KEY, or run: wandb login"


def test_the_figures_of_nodes_go_along_with_the_next_row(server: WandbServer, run: RunFolder) -> None:
    finish(run, stop=30, mode="disabled")
    with run.system.open("ab") as file:
        for node, images_seen, percent in ((0, 5, 1.5), (1, 15, 2.5), (0, 18, 3.5), (0, 20, 4.5)):
            row = {"images_seen": images_seen, "node": node, "host": "n", "gpu/0/percent": percent}
            file.write(journal.encode_row(with_schema({"row": 9, "time": 1.0, **row})))
    assert sync(run).returncode == 0
    assert_complete(server, run, stop=30)
    rows = server.history(ids(run)[0])
    found = [{key: value for key, value in row.items() if key.startswith("system/node")} for row in rows]
    first, second = ("system/node-0/gpu/0/percent", "system/node-1/gpu/0/percent")
    assert found == [{first: 1.5}, {first: 4.5, second: 2.5}, {}]


def test_the_picture_of_an_alarm_goes_with_the_row_of_its_images(server: WandbServer, run: RunFolder) -> None:
    finish(run, stop=40, mode="disabled")
    run.samples.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(run.samples / "alarm.png")
    alarm = {"state": "collapsed", "problem": "p", "images_seen": 20, "picture": "alarm.png"}
    with run.events.open("ab") as file:
        file.write(journal.encode_row(journal.event_row(EventKind.COLLAPSE_ALARM, **alarm)))
    assert sync(run).returncode == 0  # all rows are there before the first is sent
    assert [row["images_seen"] for row in server.history(ids(run)[0]) if "collapse/picture" in row] == [20]


def test_a_key_in_netrc_means_online(
    server: WandbServer, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / ".netrc").write_text(f"machine {server.url.removeprefix('http://')} login user password {KEY}\n")
    (tmp_path / ".netrc").chmod(0o600)
    finish(run, stop=50)
    assert_complete(server, run, stop=50)


@pytest.mark.parametrize(("variable", "fragments"), [("offline", 1), ("disabled", 0)])
def test_wandb_mode_is_honoured(
    server: WandbServer, run: RunFolder, monkeypatch: pytest.MonkeyPatch, variable: str, fragments: int
) -> None:
    monkeypatch.setenv("WANDB_MODE", variable)
    finish(run, stop=50)
    assert not server.requests
    assert len(list(run.wandb.glob("offline-run-*"))) == fragments


def test_events_tell_how_each_attempt_began_and_ended(run: RunFolder) -> None:
    finish(run, stop=50, mode="disabled", outcome="interrupted")
    finish(run, start=20, stop=70, mode="disabled")
    events = [
        (event["kind"], event.get("images_seen"), event.get("outcome")) for event in journal.read_rows(run.events)
    ]
    assert events == [("start", 0, None), ("end", None, "interrupted"), ("start", 20, None), ("end", None, "finished")]
    assert [row["row"] for row in journal.read_rows(run.system)] == list(range(1, 11))


def test_segments_are_chosen_by_the_last_that_begins_before_a_row(run: RunFolder) -> None:
    identity = Identity.create(run, TrackingSettings()).extend(100, "rollback").extend(50, "rollback to before it")
    assert [identity.segment_of(seen) for seen in (0, 50, 60, 100, 110)] == [0, 0, 2, 2, 2]
    identity.save(run.wandb_identity)
    assert Identity.load(run.wandb_identity) == identity
