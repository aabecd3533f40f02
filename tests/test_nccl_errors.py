"""What errors of NCCL and gloo mean, by the texts that NCCL and torch give."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch.distributed as dist

from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.core.stopping import Failed, Outcome, OutOfMemory
from trainer.distributed.gpu_places import RefusedEverywhere
from trainer.distributed.nccl_errors import Meaning, in_words, meaning_of
from trainer.launch.job_context import JobContext
from trainer.runs import journal
from trainer.runs.run_folder import RunFolder
from trainer.training import worker

HEAD = "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:94, "
USAGE = "invalid usage (run with NCCL_DEBUG=WARN for details), NCCL version 2.27.5\n"
USAGE += "ncclInvalidUsage: This usually reflects invalid usage of NCCL library.\nLast error:\n"
SYSTEM = "unhandled system error (run with NCCL_DEBUG=INFO for details), NCCL version 2.27.5\nncclSystemError: System "
SYSTEM += "call (e.g. socket, malloc) or external library call failed or device error. \nLast error:\n"
CUDA = "unhandled cuda error (run with NCCL_DEBUG=INFO for details), NCCL version 2.27.5\n"
CUDA += "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\n"
INTERNAL = "internal error - please report this issue to the NCCL developers, NCCL version 2.27.5\n"
INTERNAL += "ncclInternalError: Internal check failed.\nLast error:\n"
REMOTE = "remote process exited or there was a network error, NCCL version 2.27.5\nncclRemoteError: A call failed "
REMOTE += "possibly due to a network error or a remote process exiting prematurely.\nLast error:\n"
# The text, its meaning, and what a user is told.
CASES = [
    (
        HEAD + USAGE + "Duplicate GPU detected : rank 0 and rank 1 both on CUDA device 27000",
        Meaning.SHARED_GPU,
        "two processes on one GPU (Duplicate GPU detected : rank 0 and rank 1 both on CUDA device 27000): start one",
    ),
    (
        HEAD
        + USAGE
        + "Multiple Ranks are using the same GPU/Partition. Set NCCL_MULTI_RANK_GPU_ENABLE=1 to enable this "
        "configuration.",
        Meaning.SHARED_GPU,
        "--processes on this machine",
    ),
    (HEAD + USAGE + "Bootstrap : no socket interface found", Meaning.NO_INTERFACE, "no network interface ib7 (Boot"),
    (HEAD + INTERNAL + "Bootstrap : no socket interface found", Meaning.NO_INTERFACE, "set `interface` in the profile"),
    (
        HEAD + SYSTEM + "NET/Socket : No usable listening interface found",
        Meaning.NO_INTERFACE,
        "profile to one of its own",
    ),
    (
        HEAD + USAGE + "Mismatched NCCL version detected : rank 1 version 22703 rank 0 version 22502",
        Meaning.VERSIONS,
        "(Mismatched NCCL version detected : rank 1 version 22703 rank 0 version 22502): install the same torch",
    ),
    (
        HEAD + CUDA + "Cuda failure 'CUDA driver version is insufficient for CUDA runtime version'",
        Meaning.CUDA,
        "a call to CUDA failed inside NCCL (Cuda failure 'CUDA driver version is insufficient",
    ),
    (HEAD + CUDA + "Cuda failure 2 'out of memory'", Meaning.MEMORY, "out of memory"),
    (
        HEAD + SYSTEM + "socketStartConnect: connect to 10.0.0.2<41823> failed : No route to host",
        Meaning.NO_WAY,
        "another process cannot be reached (socketStartConnect: connect to 10.0.0.2<41823> failed : No route to host)",
    ),
    (
        HEAD
        + REMOTE
        + "socketPollConnect: connect to 10.0.0.2<41823> returned Connection refused, exceeded error retry "
        "count after 35 attempts",
        Meaning.NO_WAY,
        "python -m launcher doctor",
    ),
    (
        "The client socket has failed to connect to any network address of (10.0.0.1, 29500). The client socket has "
        "timed out after 1800000ms while trying to connect to (10.0.0.1, 29500).",
        Meaning.NO_WAY,
        "cannot be reached (The client socket has failed",
    ),
    (
        HEAD + REMOTE + "socketProgress: Connection closed by remote peer n2<55912>",
        Meaning.GONE,
        "another process is gone: socketProgress: Connection closed by remote peer n2<55912>",
    ),
    (
        "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1, OpType=BROADCAST, NumelIn=1, "
        "NumelOut=1, Timeout(ms)=600000) ran for 600081 milliseconds before timing out.",
        Meaning.GONE,
        "another process is gone: [Rank 0] Watchdog caught collective operation timeout",
    ),
    ("NCCL communicator was aborted on rank 1.  Original reason for failure was: x", Meaning.GONE, "process is gone"),
    (
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:33452",
        Meaning.GONE,
        "another process is gone: [/pytorch/third_party/gloo",
    ),
    ("Application timeout caused pair closure (gloo)", Meaning.GONE, "another process is gone"),
    (HEAD + INTERNAL + "Could not find a path for pattern 4", Meaning.OTHER, "NCCL failed: Could not find a path"),
    (
        HEAD + "invalid argument (run with NCCL_DEBUG=WARN for details), NCCL version 2.27.5",
        Meaning.OTHER,
        "with NCCL_DEBUG=INFO in the environment it tells more",
    ),
]


@pytest.mark.parametrize(("text", "meaning", "words"), CASES)
def test_what_libraries_say_is_told_as_what_it_is(
    text: str, meaning: Meaning, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "=ib7")
    error = dist.DistBackendError(text)
    found = meaning_of(error)
    assert found is meaning
    assert words in in_words(found, error)
    assert "\n" not in in_words(found, error)
    assert meaning_of(RuntimeError(text)) is meaning, "whatever the class"


def test_each_meaning_has_a_text() -> None:
    assert {meaning for _, meaning, _ in CASES} == {*Meaning}


def test_errors_of_something_else_have_no_meaning() -> None:
    for text in ("mat1 and mat2 shapes cannot be multiplied", "CUDA error: an illegal memory access was encountered"):
        assert meaning_of(RuntimeError(text)) is None
    assert meaning_of(dist.DistStoreError("wait timeout after 10000ms, keys: /a")) is Meaning.GONE


@pytest.mark.parametrize(
    ("meaning", "raised"),
    [
        (Meaning.SHARED_GPU, Refused),
        (Meaning.NO_INTERFACE, Refused),
        (Meaning.VERSIONS, Refused),
        (Meaning.MEMORY, OutOfMemory),
        (Meaning.CUDA, Failed),
        (Meaning.NO_WAY, Failed),
        (Meaning.GONE, Failed),
        (Meaning.OTHER, Failed),
    ],
)
def test_only_what_would_come_again_is_refused(
    meaning: Meaning, raised: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    text = next(text for text, known, _ in CASES if known is meaning)
    with pytest.raises(raised), worker.known_errors(Config(), RunFolder(tmp_path), JobContext()):
        raise dist.DistBackendError(text)


def test_an_error_of_something_else_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="shapes"), worker.known_errors(Config(), RunFolder(tmp_path), JobContext()):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.parametrize(("error", "rows"), [(Refused("mine"), 1), (RefusedEverywhere("all's"), 0)])
def test_what_every_rank_finds_is_written_once(
    error: Refused, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Outcome:
        raise error

    monkeypatch.setenv("RANK", "3")
    monkeypatch.setattr(worker, "train_as_rank", refuse)
    monkeypatch.setattr(worker, "set_up_logging", lambda *_: None)
    context = JobContext(place="n2", own_log=True)
    assert worker.run_rank(Config(), RunFolder(tmp_path), context) is Outcome.REFUSED
    assert len(list(journal.read_rows(RunFolder(tmp_path).events))) == rows
