"""What GPUs compute with: which mixed precision is chosen, that float32 is float32, and what is recorded of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from launcher.doctor.probe import measure_numerics
from launcher.jobs.batch_script import Request
from launcher.jobs.preparation import PreparedJob, with_precision_of_nodes
from launcher.study.prepare import ArmConfig, resolve_task
from launcher.study.run_progress import next_tasks
from shards.dataset.index import Index
from slurm.profile import Profile
from tests.fake_slurm import GPU
from tests.pretended_gpus import A100, H100, T4, V100, Gpu, pretend
from tests.studies import plan
from trainer.config.config import Config
from trainer.config.recipes import recipe_config
from trainer.distributed import numerical_environment as numerics
from trainer.distributed.numerical_environment import best_precision, driver_version, environment_differences
from trainer.gan.assembly import set_up_device
from trainer.runs.config_loading import write_config


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ([V100], "no"),
        ([T4], "no"),
        ([A100], "bf16"),
        ([H100] * 8, "bf16"),
        ([(8, 9)], "bf16"),
        ([(12, 0)], "bf16"),
        ([H100, V100], "no"),  # a run that may get either has what both have
    ],
)
def test_bf16_is_chosen_where_cards_of_nvidia_have_it(
    capabilities: list[tuple[int, int]], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, [Gpu(capability=capability) for capability in capabilities])
    monkeypatch.setattr(numerics, "cpu_has_bf16", lambda: True)
    assert best_precision() == precision


@pytest.mark.parametrize(
    ("arch", "precision"),
    [
        ("gfx942:sramecc+:xnack-", "bf16"),  # MI300
        ("gfx90a:sramecc+:xnack-", "bf16"),  # MI200
        ("gfx908", "bf16"),  # MI100
        ("gfx1100", "bf16"),  # RX 7900
        ("gfx906", "no"),  # MI50
        ("gfx1030", "no"),  # RX 6800
    ],
)
def test_bf16_is_chosen_where_cards_of_amd_have_it(arch: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, [Gpu(arch=arch, capability=(9, 0))], hip="6.4")
    assert best_precision() == precision


@pytest.mark.parametrize("has", [True, False])
def test_without_a_gpu_the_processor_decides(has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, [])
    monkeypatch.setattr(numerics, "cpu_has_bf16", lambda: has)
    assert best_precision() == ("bf16" if has else "no")


def job_on(gres: str, constraint: str = "", gpus: int = 8) -> PreparedJob:
    request = Request("r", "1", 8, 12, gpus, 60, None, Profile(constraint=constraint))
    return PreparedJob(request, replace(GPU, gres_per_node=gres))


@pytest.mark.parametrize(
    ("gres", "constraint", "precision"),
    [
        ("gpu:v100:8", "", "no"),
        ("gpu:tesla_v100-sxm2-32gb:8(S:0-1)", "", "no"),
        ("gpu:4", "t4", "no"),
        ("gpu:rtx_2080_ti:4", "", "no"),
        ("gpu:quadro_rtx_6000:4", "", "no"),
        ("gpu:rtx_6000_ada:4", "", "bf16"),
        ("gpu:h100:8", "", "bf16"),
        ("gpu:a100:4(S:0-1),shard:8", "", "bf16"),
        ("gpu:nvidia_l40s:4", "", "bf16"),
        ("gpu:mi300x:8", "", "bf16"),
        ("gpu:8", "", "bf16"),
    ],
)
def test_a_job_has_the_precision_of_its_nodes_and_not_of_this_machine(
    gres: str, constraint: str, precision: str
) -> None:
    job = job_on(gres, constraint)
    assert with_precision_of_nodes(Config(), job).mixed_precision == precision
    assert with_precision_of_nodes(Config(mixed_precision="fp16"), job).mixed_precision == "fp16"


def test_a_job_without_gpus_has_the_precision_of_the_machine() -> None:
    assert with_precision_of_nodes(Config(), job_on("gpu:v100:8", gpus=0)).mixed_precision == "auto"


def test_a_study_trains_in_the_precision_of_its_nodes(tmp_path: Path, shards32: Path) -> None:
    """And goes on in the one that a run began with."""
    study, config = plan(tmp_path, seeds=1), replace(recipe_config("dcgan-32"), data=shards32)
    task, arm = next_tasks(study, retry=False)[1][0], ArmConfig(config, Index.open(shards32))
    began = resolve_task(study, task, arm, job_on("gpu:v100:8"))
    assert began.mixed_precision == "no"
    assert resolve_task(study, task, arm, job_on("gpu:h100:8")).mixed_precision == "bf16"
    write_config(task.run, began)
    assert resolve_task(study, task, arm, job_on("gpu:h100:8")).mixed_precision == "no"


@pytest.fixture
def as_torch_begins() -> Iterator[None]:
    """TF32 as torch has it when it starts, and again afterwards."""
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = cuda.allow_tf32, cudnn.allow_tf32
    cuda.allow_tf32, cudnn.allow_tf32 = True, True
    yield
    cuda.allow_tf32, cudnn.allow_tf32 = before


@pytest.mark.parametrize("deterministic", [True, False])
def test_training_has_no_tf32(deterministic: bool, as_torch_begins: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    was = torch.are_deterministic_algorithms_enabled()
    set_up_device(Config(deterministic=deterministic, mixed_precision="no"), "here")
    torch.use_deterministic_algorithms(was)
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


def test_the_doctor_looks_at_what_training_has(as_torch_begins: None) -> None:
    measure_numerics()
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The numerical environment on a GPU that is only pretended."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 27, 5))
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setattr(numerics, "driver_version", lambda: "570.86.15")
    return dict(numerics.numerical_environment(torch.device("cuda", 0)))


def test_what_bits_on_a_gpu_depend_on_is_recorded(as_torch_begins: None, monkeypatch: pytest.MonkeyPatch) -> None:
    found = recorded(monkeypatch)
    assert (found["nccl"], found["driver"], found["tf32"], found["cudnn"]) == ("2.27.5", "570.86.15", True, 91002)
    assert found["threads"] == 1
    torch.backends.cuda.matmul.allow_tf32 = False
    assert recorded(monkeypatch)["tf32"], "convolutions still have it"
    numerics.state_float32_kernels()
    assert environment_differences(found, recorded(monkeypatch)) == ["tf32 was True, is False"]


def test_an_environment_of_an_earlier_version_differs_in_what_it_has_noted_only() -> None:
    now = numerics.numerical_environment(torch.device("cpu"))
    before = {key: value for key, value in now.items() if key not in ("nccl", "driver", "tf32")}
    assert environment_differences(before, now) == []
    assert environment_differences(before | {"torch": "2.9"}, now) == [f"torch was '2.9', is {torch.__version__!r}"]
    del before["operations"]  # the first version did not count them
    assert environment_differences(before, now) == [f"operations was 1, is {numerics.OPERATIONS}"]


def test_the_driver_is_read_where_the_kernel_tells_it(tmp_path: Path) -> None:
    assert driver_version(tmp_path) == ""
    for module, version in (("amdgpu", "6.12.12"), ("nvidia", "570.86.15")):
        (tmp_path / "module" / module).mkdir(parents=True)
        (tmp_path / "module" / module / "version").write_text(version + "\n")
        assert driver_version(tmp_path) == version
