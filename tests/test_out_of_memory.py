"""A run that has too little memory ends at once, says what to change, and is not tried again."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from launcher.jobs import attempts, exit_cause
from launcher.jobs.attempts import Attempt, Cause, Decision
from slurm import control
from tests.conftest import HOME, TINY, run, train
from trainer.config.config import Config
from trainer.launch.out_of_memory import is_out_of_memory, out_of_memory_message, smaller_micro_batch
from trainer.runs import journal
from trainer.runs.journal import EventKind, Journal, event_row, now
from trainer.runs.run_folder import RunFolder

DEVICE = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 512.00 MiB. GPU 3 has a total capacity of 79.11 GiB of which 300.50 MiB is "
    "free. Including non-PyTorch memory, this process has 78.80 GiB memory in use."
)
HOST = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4000000000000000 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (DEVICE, True),
        (HOST, True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), True),
        (RuntimeError("NCCL error in: x\nLast error:\nCuda failure 2 'out of memory'"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("NCCL error: remote process exited"), False),
    ],
)
def test_it_is_told_from_other_errors(error: Exception, memory: bool) -> None:
    assert is_out_of_memory(error) is memory


def test_real_allocators_are_understood() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**15)
    assert is_out_of_memory(raised.value)
    told = out_of_memory_message(raised.value, Config(), RunFolder(Path("r")), "rank 0 on n1")
    assert "4000000000000000 bytes were asked for" in told


def test_it_says_what_was_asked_for_what_there_is_and_what_to_change(tmp_path: Path) -> None:
    config, run_folder = Config(batch_size=96, micro_batch_size=24), RunFolder(tmp_path / "a run")
    told = out_of_memory_message(DEVICE, config, run_folder, "rank 3 on n1")
    assert told.startswith(
        "out of memory on rank 3 on n1: 512.00 MiB were asked for, 300.50 MiB of the GPU's 79.11 GiB "
    )
    assert "are free. Begin a new run with --micro-batch-size 12, or with smaller networks" in told
    (run_folder.checkpoints / "000000000064-r00").mkdir(parents=True)
    assert (
        f"resume '{run_folder.path}' --as '{run_folder.path}-smaller' --micro-batch-size 12"
        in out_of_memory_message(DEVICE, config, run_folder, "rank 3 on n1")
    )
    least = replace(config, micro_batch_size=1)
    assert out_of_memory_message(DEVICE, least, run_folder, "").endswith(
        "Begin a new run with smaller networks (--network.g-channels, --network.d-channels)"
    )
    assert "of the machine's" in out_of_memory_message(HOST, config, run_folder, "rank 0 on n1")


@pytest.mark.parametrize(("size", "smaller"), [(32, 16), (24, 12), (9, 3), (7, 1), (1, 0)])
def test_smaller_micro_batches_divide_the_batch(size: int, smaller: int) -> None:
    assert smaller_micro_batch(size) == smaller


def test_bf16_is_named_where_a_gpu_may_have_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    whole = replace(Config(), mixed_precision="no")
    assert "or --mixed-precision bf16" in out_of_memory_message(DEVICE, whole, RunFolder(tmp_path), "")
    assert "bf16" not in out_of_memory_message(DEVICE, replace(whole, mixed_precision="bf16"), RunFolder(tmp_path), "")


def planted_from_the_start(folder: Path) -> str:
    """Return a PYTHONPATH with which every trainer has the planted mistake, however it is started."""
    folder.mkdir()
    lines = (
        "import sys",
        "if '-m' in sys.orig_argv and 'trainer' in sys.orig_argv and 'train' in sys.orig_argv:",
        "    import os",
        f"    sys.path.insert(0, {str(HOME)!r})",
        "    if 'RANK' in os.environ:",
        "        from tests.planted import out_of_memory",
        "        out_of_memory()",
    )
    (folder / "sitecustomize.py").write_text("\n".join(lines))
    return f"{folder}:{os.environ.get('PYTHONPATH', '')}"


def test_a_run_here_ends_and_what_it_says_to_do_works(shards32: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a run"
    settings = (*TINY, "--run", str(folder), "--data", str(shards32), "--processes", "2", "--total-images", "128")
    done = run("trainer", "train", *settings, PYTHONPATH=planted_from_the_start(tmp_path / "planted"))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "the run has stopped; go on with" not in done.stderr, "the same again would end the same way"
    (row,) = [row for row in journal.read_rows(RunFolder(folder).events) if row["kind"] == EventKind.OUT_OF_MEMORY]
    assert row["problem"].startswith(
        "out of memory on rank 1 on this machine: 2.00 GiB were asked for, 1.06 GiB of the"
    )

    shown = json.loads(run("launcher", "status", str(folder), "--json").stdout)[0]
    assert (shown["state"], shown["reason"]) == ("failed", row["problem"])
    assert [start["cause"] for start in shown["starts"]] == ["out of memory"]

    words = shlex.split(row["problem"].partition("smaller parts: ")[2].partition("; or")[0])
    assert words[:3] == ["python", "-m", "launcher"]
    again = run(*words[2:], "--cluster", "local", "--total-images", "64")
    assert again.returncode == 0, again.stderr
    assert json.loads((Path(f"{folder}-smaller") / "config.json").read_text())["micro_batch_size"] == 4


@pytest.mark.parametrize("code", [1, 137])
def test_a_job_is_not_started_again(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though for rank 0 the other one is only gone, and for srun both crashed."""
    monkeypatch.setattr(control, "list_nodes", lambda: [])
    folder, attempt = RunFolder(tmp_path), Attempt(7, 0, now(), ("n1", "n2"), 100)
    events = Journal(folder.events)
    events.append(event_row(EventKind.OUT_OF_MEMORY, problem="out of memory on rank 1 on n2: …"))
    events.append(event_row(EventKind.END, outcome="failed", signal=None, problem="another process is gone: …"))
    events.close()
    ended = exit_cause.explain_end(folder, attempt, code, None)
    assert (ended.cause, ended.detail) == (Cause.OUT_OF_MEMORY, "out of memory on rank 1 on n2: …")
    assert attempts.decide_what_follows([ended]) is Decision.END


def test_a_run_that_has_memory_says_nothing_of_it(shards32: Path, tmp_path: Path) -> None:
    train(tmp_path / "r", shards32, "--total-images", "64")
    assert EventKind.OUT_OF_MEMORY not in {row["kind"] for row in journal.read_rows(RunFolder(tmp_path / "r").events)}
