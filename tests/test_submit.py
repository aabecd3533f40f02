"""`launcher submit`: the settings are resolved once, and what may have changed since is checked while it is held."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from launcher.__main__ import main
from launcher.jobs import submission
from launcher.jobs.job_record import JobRecord
from slurm import control
from tests.conftest import HOME, TINY
from tests.fake_slurm import FakeSlurm, fake_slurm, live_job
from trainer.config.wandb_environment import CLOUD_HOSTS, server_url
from trainer.launch import prepared_training
from trainer.runs.config_resolution import resolve_config
from trainer.runs.lease import held
from trainer.runs.lease_holder import Owner
from trainer.runs.run_folder import RunFolder

__all__ = ["fake_slurm"]


def submit(shards: Path, *more: str) -> int:
    return main(["submit", *TINY, "--data", str(shards), "--run", "r", *more])


@pytest.mark.parametrize("place", [(), ("--cluster", "local", "--dry-run")])
def test_the_settings_are_resolved_once(
    place: tuple[str, ...], fake_slurm: FakeSlurm, shards32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = []

    def counted(*args: object) -> object:
        resolved.append(args)
        return resolve_config(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(prepared_training, "resolve_config", counted)
    assert submit(shards32, *place) == 0
    assert len(resolved) == 1


def meanwhile(change: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let something happen between the checks and the moment at which the run folder is held."""

    def later(run: RunFolder, owner: Owner) -> AbstractContextManager[None]:
        change()
        return held(run, owner)

    monkeypatch.setattr(submission, "held", later)


def test_a_job_that_was_submitted_meanwhile_is_seen(
    fake_slurm: FakeSlurm, shards32: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def another() -> None:
        Path("r").mkdir()
        JobRecord(76, 1, "1", 1, 120, "").save(RunFolder(Path("r")))
        monkeypatch.setattr(control, "show_job", lambda id: live_job(id, "PENDING"))

    meanwhile(another, monkeypatch)
    assert submit(shards32) == 2
    assert "r has job 76 already, which is pending" in capsys.readouterr().err
    assert not (fake_slurm.folder / "argv").exists()


def test_a_run_that_began_meanwhile_keeps_its_settings(
    fake_slurm: FakeSlurm, shards32: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit(shards32, "--seed", "1") == 0
    stored = Path("r/config.json").read_bytes()
    for name in ("config.json", "job.json", "wandb.json"):
        Path("r", name).unlink()
    meanwhile(lambda: Path("r/config.json").write_bytes(stored), monkeypatch)
    assert submit(shards32, "--seed", "2") == 2
    assert "seed is 1 in r and cannot become 2" in capsys.readouterr().err
    assert json.loads(stored)["seed"] == 1
    assert Path("r/config.json").read_bytes() == stored


def test_submit_does_not_load_wandb(shards32: Path, tmp_path: Path) -> None:
    """Not even to find out whether there is a key for its server."""
    (tmp_path / "netrc").write_text("machine example.org login user password " + "0" * 40)
    (tmp_path / "settings").write_text("[default]\nbase_url = https://example.org\n")
    command = ["submit", *TINY, "--tracking.mode", "auto", "--data", str(shards32), "--cluster", "local", "--dry-run"]
    code = (
        "import os, sys; from launcher.__main__ import main\n"
        f"os.environ.update(NETRC={str(tmp_path / 'netrc')!r}, WANDB_CONFIG_DIR={str(tmp_path)!r})\n"
        "for name in ('WANDB_MODE', 'WANDB_API_KEY', 'WANDB_BASE_URL'): os.environ.pop(name, None)\n"
        f"import launcher.cli.submit, launcher.cli.study; main({command!r}); sys.exit('wandb' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "online, project" in done.stdout


def test_the_server_of_wandb_is_the_one_that_wandb_would_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_BASE_URL", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path)

    def asked() -> str:
        code = "import wandb; print(wandb.setup().settings.base_url)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert urlsplit(server_url()).netloc in CLOUD_HOSTS
    assert urlsplit(asked()).netloc in CLOUD_HOSTS
    for folder, text, server in (
        ("user", "[default]\nbase_url = https://user.example/\n", "https://user.example"),
        ("wandb", "[default]\nbase_url = https://here.example\n", "https://here.example"),
        (".wandb", "no settings", "https://user.example"),
    ):
        Path(folder).mkdir()
        Path(folder, "settings").write_text(text)
        assert (server_url(), asked()) == (server, server)
