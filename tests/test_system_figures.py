"""The figures of a node: from made counters, made libraries of GPUs, and on their way to rank 0."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # re-exported without a word

from tests.conftest import TINY, train
from tests.ranks import start_ranks
from trainer.distributed.world import World
from trainer.runs import journal
from trainer.runs.journal import Row
from trainer.runs.run_folder import RunFolder
from trainer.tracking.gpu_figures import read_gpus, visible_gpus
from trainer.tracking.system_columns import SystemColumns
from trainer.tracking.system_figures import MIB, Counters
from trainer.training.node_figures import NodeFigures, figures_key

NODE_COLUMNS = {"cpu_percent", "memory_used_mb", "memory_total_mb", "disk_read_mb_per_s", "network_send_mb_per_s"}
SHARES = {f"time/{name}" for name in ("data", "draws", "forward_backward", "exchange", "optimizer", "other")}


def write_counters(folder: Path, busy: int, idle: int, mib: int) -> None:
    """Write what Linux would show: hundredths of seconds, sectors of 512 bytes, bytes."""
    proc, sysfs = folder / "proc", folder / "sys"
    for device in ("block/sda", "class/net/eth0"):
        (sysfs / device / "device").mkdir(parents=True, exist_ok=True)
    (sysfs / "block/dm-0").mkdir(exist_ok=True)
    counters = sysfs / "class/infiniband/mlx5_0/ports/1/counters"
    counters.mkdir(parents=True, exist_ok=True)
    (counters / "port_rcv_data").write_text(f"{8 * mib * MIB // 4}\n")
    (counters / "port_xmit_data").write_text(f"{16 * mib * MIB // 4}\n")
    (proc / "net").mkdir(parents=True, exist_ok=True)
    (proc / "stat").write_text(f"cpu {busy} 0 0 {idle - 100} 100 0 0 0 {busy} 0\n")
    read, written = (times * mib * MIB // 512 for times in (1, 2))
    disk = f"5 0 {read} 0 5 0 {written} 0 0 0 0 0 0 0 0"
    names = ((8, 0, "sda"), (8, 1, "sda1"), (253, 0, "dm-0"))
    (proc / "diskstats").write_text("".join(f"{a} {b} {name} {disk}\n" for a, b, name in names))
    counted = f"{3 * mib * MIB} 9 0 0 0 0 0 0 {4 * mib * MIB} 9 0 0 0 0 0 0"
    lines = [f" {name}: {counted}\n" for name in ("lo", "eth0", "bond0")]
    (proc / "net/dev").write_text("Inter-|   Receive\n face |bytes\n" + "".join(lines))


def test_rates_are_those_of_devices_each_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / "proc"))
    times = iter([10.0, 14.0])
    monkeypatch.setattr("trainer.tracking.system_figures.time.monotonic", lambda: next(times))
    write_counters(tmp_path, busy=1000, idle=5000, mib=100)
    before = Counters.read(tmp_path / "sys")
    write_counters(tmp_path, busy=1300, idle=5100, mib=108)
    assert Counters.read(tmp_path / "sys").rates_since(before) == {
        "cpu_percent": 75.0,
        "disk_read_mb_per_s": 2.0,
        "disk_write_mb_per_s": 4.0,
        "network_receive_mb_per_s": 6.0,
        "network_send_mb_per_s": 8.0,
        "infiniband_receive_mb_per_s": 16.0,
        "infiniband_send_mb_per_s": 32.0,
    }


def test_a_device_that_is_taken_away_makes_no_negative_rate(tmp_path: Path) -> None:
    before = Counters.read(tmp_path)
    after = Counters(before.time_s + 1, before.cpu_busy_s, before.cpu_s, -5 * MIB, 0, 0, 0, None, None)
    assert min(after.rates_since(before).values()) == 0


def missing() -> float:
    """Stand for a query that the card does not know."""
    raise LookupError("not supported")


def fake_nvml() -> SimpleNamespace:
    """Return what pynvml would be with two cards, of which the second tells neither power nor utilisation."""
    return SimpleNamespace(
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUtilizationRates=lambda card: missing() if card else SimpleNamespace(gpu=97, memory=40),
        nvmlDeviceGetMemoryInfo=lambda card: SimpleNamespace(used=(1 + card) << 30, total=80 << 30),
        nvmlDeviceGetPowerUsage=lambda card: missing() if card else 412_340,
        nvmlDeviceGetTemperature=lambda card, sensor: 61 + card + sensor,
    )


def test_nvidias_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    assert read_gpus(visible_gpus()) == {
        "gpu/0/percent": 97,
        "gpu/0/memory_used_mb": 1024,
        "gpu/0/memory_total_mb": 81920,
        "gpu/0/power_w": 412.3,
        "gpu/0/temperature_c": 61,
        "gpu/1/memory_used_mb": 2048,
        "gpu/1/memory_total_mb": 81920,
        "gpu/1/temperature_c": 62,
    }


def test_amds_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    smi = SimpleNamespace(
        AmdSmiTemperatureType=SimpleNamespace(HOTSPOT="hotspot"),
        AmdSmiTemperatureMetric=SimpleNamespace(CURRENT="current"),
        amdsmi_init=lambda: None,
        amdsmi_get_processor_handles=lambda: ["card"],
        amdsmi_get_gpu_activity=lambda card: {"gfx_activity": "N/A"},
        amdsmi_get_gpu_vram_usage=lambda card: {"vram_used": 100, "vram_total": 196_592},
        amdsmi_get_power_info=lambda card: {"current_socket_power": "N/A", "average_socket_power": 90},
        amdsmi_get_temp_metric=lambda card, sensor, metric: {"hotspot": 55}[sensor],
    )
    monkeypatch.setitem(sys.modules, "amdsmi", smi)
    assert read_gpus(visible_gpus()) == {
        "gpu/0/memory_used_mb": 100,
        "gpu/0/memory_total_mb": 196_592,
        "gpu/0/power_w": 90,
        "gpu/0/temperature_c": 55,
    }


@pytest.mark.parametrize("gpu", [False, True])
def test_without_a_library_there_are_no_figures(
    gpu: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("pynvml", "amdsmi"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    with caplog.at_level(logging.WARNING):
        assert read_gpus(visible_gpus()) == {}
    assert ("no figures of this node's GPUs" in caplog.text) == gpu


def test_a_row_for_wandb_has_its_step_and_the_last_figures_of_each_node() -> None:
    columns = SystemColumns()
    columns.add([{"row": 1, "images_seen": 10, "images_per_s": 5.0}])
    for row, (node, images_seen, percent) in enumerate([(0, 10, 1.0), (0, 17, 2.0), (1, 20, 3.0), (0, 21, 4.0)], 2):
        figures = {"cpu_percent": percent, "gpu/0/percent": 99.0}
        columns.add([{"row": row, "time": 1.0, "node": node, "host": "n", "images_seen": images_seen, **figures}])
    assert columns.take(10) == {
        "row": 1,
        "images_seen": 10,
        "images_per_s": 5.0,
        "node-0/cpu_percent": 1.0,
        "node-0/gpu/0/percent": 99.0,
    }
    taken = columns.take(20)
    assert (taken["node-0/cpu_percent"], taken["node-1/cpu_percent"]) == (2.0, 3.0)
    assert columns.take(30)["node-0/cpu_percent"] == 4.0
    assert columns.take(40) == {}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> TCPStore:
    """Serve the store where ranks meet."""
    served = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(served.port))
    return served


def until(known: Callable[[], object], of: NodeFigures) -> None:
    """Wait until something is so, for as long as figures are measured."""
    for _ in range(1000):
        if known():
            return
        assert of.thread
        of.thread.join(0.01)
    raise AssertionError("it never came")


def test_rank_0_gets_the_rows_of_nodes_that_live_each_once(store: TCPStore) -> None:
    store.set(figures_key(2), json.dumps({"node": 2, "cpu_percent": -1.0}))  # of an attempt before this one
    rows: list[Row] = []
    main, other = (NodeFigures(World(rank, 8), [0, 2, 4, 6], 0.1) for rank in (0, 2))
    main.start(rows.append)
    until(lambda: rows, main)  # though the others have sent nothing, and the last one never will
    other.start()
    until(lambda: sum(row["node"] == 1 for row in rows) > 1, main)
    other.close()
    until(lambda: sum(row["node"] == 0 for row in rows) > 10, main)  # though another one has stopped
    main.close()
    count = len(rows)
    assert {row["node"] for row in rows} == {0, 1}
    sent = [json.dumps(row) for row in rows if row["node"] == 1]
    assert len(set(sent)) == len(sent)
    assert all(row.keys() >= NODE_COLUMNS for row in rows)
    main.hand_over({"node": 1})
    assert len(rows) == count, "written after the end"


def test_a_store_that_is_gone_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("connection refused")

    monkeypatch.setattr("trainer.training.node_figures.TCPStore", refuse)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    rows: list[Row] = []
    figures = NodeFigures(World(0, 2), [0, 1], 0.1)
    figures.start(rows.append)
    until(lambda: len(rows) > 2, figures)
    figures.close()


def test_only_the_first_rank_of_a_node_measures() -> None:
    figures = NodeFigures(World(1, 4), [0, 2], 0.1)
    figures.start()
    assert figures.thread is None
    figures.close()


def train_on_two_nodes(folder: Path, data: Path, *settings: str) -> None:
    """Train with two processes, each of which believes to be alone on its node."""
    ranks = start_ranks(RunFolder(folder), 2, *TINY, "--data", str(data), *settings, nodes=2)
    assert ranks.wait() == [0, 0], Path(f"{folder}.log").read_text()


def test_a_run_on_two_nodes_has_rows_of_both_and_the_same_metrics(shards32: Path, tmp_path: Path) -> None:
    settings = ("--total-images", "640", "--workers", "0")
    train(tmp_path / "alone", shards32, *settings, "--system-every-s", "1000")
    train_on_two_nodes(tmp_path / "two", shards32, *settings, "--system-every-s", "0.1")
    alone, two = ([*journal.read_rows(tmp_path / run / "system.jsonl")] for run in ("alone", "two"))
    of_nodes = [row for row in two if "node" in row]
    assert {row["node"] for row in of_nodes} == {0, 1}
    assert all(row.keys() >= NODE_COLUMNS | {"images_seen", "time", "host"} for row in of_nodes)
    assert not [row for row in alone if "node" in row]
    steps = [row for row in two if "elapsed_s" in row]
    assert [row["images_seen"] for row in steps] == [*range(32, 641, 32)]
    assert [row["row"] for row in two] == [*range(1, len(two) + 1)]
    measured = [row for row in steps if "time/other" in row]
    assert measured
    assert all(row.keys() >= SHARES and abs(sum(row[name] for name in SHARES) - 1) < 0.001 for row in measured)
    assert all(max(row[f"time/{name}"] for row in measured) > 0 for name in ("data", "draws", "exchange", "optimizer"))
    metrics = [(tmp_path / run / "metrics.jsonl").read_bytes() for run in ("alone", "two")]
    assert metrics[0] == metrics[1]
