"""`make gpu` without a GPU: its parts, its report, and its pretended ranks, on a device that is a CPU."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch.amp.grad_scaler import GradScaler

from bench import gpu, gpu_bits, gpu_graphs
from bench.gpu import PARTS, Part, main, run_parts
from bench.gpu_bits import Bench, compare, configuration
from bench.gpu_ranks import PretendedRanks
from bench.gpu_report import read_tables, read_usage
from tests.conftest import HOME, run
from tests.planted import MISTAKES
from tests.recorded_operations import RecordedOperations
from trainer.distributed import exchange
from trainer.distributed.regions import REGION_NUMEL
from trainer.distributed.summation_tree import tree_sum
from trainer.distributed.world import World
from trainer.gan.state import TrainState

TABLE = "printf '| what | images/s |\\n|---|---|\\n| ours | 3.5 |\\n'"
DEVICE = Part("device", 60, "{python} -m bench.gpu --describe cpu")
STAND_IN = (
    Part("hangs", 5, "sh -c 'sleep 600 & echo child $!; wait'"),  # first: it has no more time than this
    Part("whole", 60, f"sh -c {json.dumps(TABLE)}"),
    DEVICE,
    Part("fails", 60, "sh -c 'echo what is wrong >&2; exit 3'"),
    Part("is not there", 60, "/no/such/program"),
    Part("skips", 60, "echo SKIPPED", refuses="SKIPPED"),
    Part("last", 60, "echo at the end"),
)


def test_the_parts_fit_into_nine_minutes() -> None:
    assert sum(part.limit_s for part in PARTS) < 9 * 60
    names = [part.name for part in PARTS]
    assert len({*names}) == len(names)
    assert names[:2] == ["install", "device"]
    documented = (HOME / "docs" / "gpus.md").read_text()
    for part in PARTS:
        assert re.search(rf"^\| {part.name} \| .* \| {part.limit_s} \|$", documented, re.MULTILINE), part.name
        words = part.command.split()
        if words[0] == "{python}":
            assert find_spec(words[2]), part.command


def test_it_starts_where_nothing_is_installed() -> None:
    code = "import sys, bench.gpu; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-S", "-c", code], cwd=HOME).returncode == 0
    command = ["make", "-n", "--no-print-directory", "gpu", "PYTHON=py"]
    planned = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=True)
    assert planned.stdout == "py -m bench.gpu\n"


def test_each_part_is_told_and_none_stops_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_parts(STAND_IN, tmp_path / "gpu") == 1
    report = json.loads((tmp_path / "gpu" / "report.json").read_text())
    parts = {part["name"]: part for part in report["parts"]}
    outcomes = {name: part["outcome"] for name, part in parts.items()}
    assert outcomes == {
        **{"whole": "passed", "device": "passed", "last": "passed", "hangs": "late"},
        **dict.fromkeys(["fails", "is not there", "skips"], "failed"),
    }
    assert parts["fails"]["exit_code"] == 3
    assert parts["fails"]["last_lines"] == ["what is wrong"]
    assert "/no/such/program" in parts["is not there"]["last_lines"][-1]
    assert parts["whole"]["tables"] == [[{"what": "ours", "images/s": "3.5"}]]
    assert report["device"]["torch"] == torch.__version__
    assert {"driver", "device", "cuda"} <= report["device"].keys()
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HOME, capture_output=True, text=True)
    assert report["commit"].startswith(head.stdout.strip() or "unknown")
    child = int(parts["hangs"]["last_lines"][0].split()[1])
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z", "what a late part has started goes on"
    told = (tmp_path / "gpu" / "report.md").read_text()
    for part in parts.values():
        assert f"## {part['name']}: {part['outcome']}\n\n`{part['command']}`\n" in told
    assert "\n| ours | 3.5 |\n" in told
    assert "\nwhat is wrong\n" in told
    assert f"\n- torch: {torch.__version__}\n" in told
    assert capsys.readouterr().out.count(" after ") == len(STAND_IN)


def test_all_well_is_exit_code_0(tmp_path: Path) -> None:
    assert run_parts(STAND_IN[1:3], tmp_path) == 0


def test_time_that_a_part_leaves_is_the_next_ones(tmp_path: Path) -> None:
    parts = [Part("quick", 30, "true"), Part("slow", 1, "sleep 3"), Part("late", 0, "sleep 100")]
    assert run_parts([*parts[:2], replace(parts[2], limit_s=1)], tmp_path) == 1
    told = json.loads((tmp_path / "report.json").read_text())["parts"]
    assert [part["outcome"] for part in told[:2]] == ["passed", "passed"]
    assert told[0]["limit_s"] == 30
    assert 25 <= told[1]["limit_s"] <= 31


def test_no_gpu_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "gpu_in_sight", lambda: False)
    monkeypatch.setattr(gpu, "REPORTS", tmp_path / "gpu")
    assert main([]) == 2
    said = capfd.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "no GPU" in said.err
    assert not (tmp_path / "gpu").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="gpu: there is one")
def test_a_torch_that_cannot_use_the_gpu_is_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    device = replace(DEVICE, command="{python} -m bench.gpu --describe cuda")
    assert run_parts([device, STAND_IN[-1]], tmp_path) == 2
    assert f"no GPU here that torch {torch.__version__} can use" in capfd.readouterr().err
    assert not (tmp_path / "report.md").exists()


def test_what_nvidia_smi_says_meanwhile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = tmp_path / "nvidia-smi"
    stand_in.write_text(
        "#!/bin/sh\necho '40, 1000, 90.5, 50'\necho '60, 3000, 99.5, 52'\ntouch asked\nexec sleep 600\n"
    )
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    described = Part("device", 60, 'echo \'{"uuid": "GPU-1"}\'')
    wait = Part("wait", 60, f"sh -c 'until [ -e {tmp_path}/asked ]; do sleep 0.1; done'")
    assert run_parts([described, wait], tmp_path) == 0
    of = {part["name"]: part["usage"] for part in json.loads((tmp_path / "report.json").read_text())["parts"]}
    assert of["device"] == {}
    assert of["wait"]["utilisation_percent"] == [50, 60]
    assert of["wait"]["memory_mib"] == [2000, 3000]
    told = (tmp_path / "report.md").read_text()
    assert "| 50, at most 60 | 2000, at most 3000 | 95, at most 100 | 51, at most 52 |" in told


def test_lines_that_are_no_figures_are_left_out() -> None:
    assert read_usage("[N/A], 3, 4, 5\n1, 2\nNo devices were found\n") == {}
    assert read_usage("1, 2, 3, 4\n[N/A], 3, 4, 5\n")["power_w"] == (3, 3)


def test_tables_are_read_by_their_heads() -> None:
    lines = [
        "a",
        "| x | y |",
        "|---|---|",
        "| 1 | 2 |",
        "| 3 |  |",
        "",
        "| x |",
        "|---|",
        "b",
        "| z |",
        "|---|",
        "| 5 |",
    ]
    assert read_tables(lines) == [[{"x": "1", "y": "2"}, {"x": "3", "y": ""}], [{"z": "5"}]]


SMALL = Bench("cpu", ("dcgan-32",), ("no",), micro_batch_size=2, channels=4)


def test_the_bits_of_pretended_ranks_are_equal() -> None:
    arguments = ("--recipes", "dcgan-32", "--channels", "4", "--micro-batch-size", "2", "--device", "cpu")
    done = run("bench.gpu_bits", *arguments)
    assert done.returncode == 0, done.stderr
    (rows,) = read_tables(done.stdout.splitlines())
    assert [row["mixed precision"] for row in rows] == ["no", "bf16", "fp16"]
    assert all(row[column] == "equal" for row in rows for column in ("1 rank again", "2 ranks", "4 ranks"))


@pytest.mark.parametrize("regions", [None, 1000])
def test_a_planted_mistake_in_the_order_between_ranks_is_seen(
    regions: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shares of 1, 2, 1 and 2: from left to right is not the tree's order. In one region, and in many, as on a GPU."""
    if regions:
        monkeypatch.setitem(REGION_NUMEL, "cpu", regions)
    config, device = configuration(SMALL, "dcgan-32", "no"), torch.device("cpu")
    assert compare(config, device) == [True, True, True]
    monkeypatch.setattr(exchange, "tree_sum", tree_sum)  # so that it is put back at the end
    MISTAKES["order_between_ranks"]()
    assert compare(config, device) == [True, False, False]


@pytest.mark.parametrize(("deterministic", "code"), [(True, 1), (False, 0)])
def test_other_bits_fail_with_deterministic_kernels_only(
    deterministic: bool, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_bits, "compare", lambda config, device: [True, False, True])
    monkeypatch.setattr(gpu_bits, "choose_kernels", lambda deterministic: None)
    assert gpu_bits.main(replace(SMALL, deterministic=deterministic)) == code
    (row,) = read_tables(capsys.readouterr().out.splitlines())[0]
    assert [row["1 rank again"], row["2 ranks"], row["4 ranks"]] == ["equal", "differ", "equal"]


def test_ranks_that_trained_nothing_are_no_proof(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In fp16 a step that overflows is left out, though statistics of batches move on."""
    monkeypatch.setattr(GradScaler, "step", lambda self, optimizer: None)
    monkeypatch.setattr(gpu_bits, "choose_kernels", lambda deterministic: None)
    assert gpu_bits.main(replace(SMALL, precisions=("fp16",))) == 1
    assert "no weight has moved" in capsys.readouterr().out


def test_a_rank_that_fails_ends_the_others() -> None:
    ranks = PretendedRanks(3)

    def act(world: World) -> str:
        if world.rank == 1:
            raise ValueError("the cause")
        ranks.meet(world.rank)
        return ""

    with pytest.raises(ValueError, match="the cause"):
        ranks.run(act)


def test_graphs_are_compared_with_kernels() -> None:
    config = gpu_graphs.configuration("stylegan2-ada-64", "no", 2, 4)
    assert config.penalties.r1.every == config.penalties.path_length.every == config.augment.interval == 2
    network = replace(config.network, size=16, g_channels=4, d_channels=4, max_channels=8)
    config = replace(config, network=network)
    made: list[RecordedOperations] = []

    def stand_in(state: TrainState) -> RecordedOperations:
        made.append(RecordedOperations([*state.tensors().values()]))
        return made[-1]

    plain, graphs = gpu_graphs.compare(config, torch.device("cpu"), stand_in)
    assert plain.bits == graphs.bits
    assert (made[0].captured, made[0].replays) == (2, gpu_graphs.STEPS - 2)
    assert min(plain.ms, graphs.ms) > 0


@pytest.mark.parametrize(("bits", "code"), [("a", 0), ("b", 1)])
def test_bits_that_differ_as_graphs_fail(
    bits: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = gpu_graphs.Trained("a", 4.0), gpu_graphs.Trained(bits, 1.0)
    monkeypatch.setattr(gpu_graphs, "compare", lambda config, device, graphs_of: trained)
    monkeypatch.setattr(gpu_graphs, "choose_kernels", lambda deterministic: None)
    assert gpu_graphs.main(gpu_graphs.Bench(recipes=("dcgan-64",), precisions=("no",), micro_batches=(1,))) == code
    found = "equal" if code == 0 else "differ"
    assert f"| dcgan-64 | no | 1 | {found} | 4.00 | 1.00 | 4.00 |" in capsys.readouterr().out


def test_a_step_that_cannot_be_recorded_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("operation not permitted\nmore")

    monkeypatch.setattr(gpu_graphs, "compare", fail)
    monkeypatch.setattr(gpu_graphs, "choose_kernels", lambda deterministic: None)
    assert gpu_graphs.main(gpu_graphs.Bench(recipes=("dcgan-64", "sngan-64"), precisions=("no",))) == 1
    assert capsys.readouterr().out.count("operation not permitted") == 4
