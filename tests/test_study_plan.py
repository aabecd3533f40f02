"""What is trained when, for which budget; what a run has come to; and what is collected of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from launcher.jobs.attempts import Cause, Decision
from launcher.jobs.evaluation_target import EvaluationTarget
from launcher.jobs.resource_request import ResourceRequest
from launcher.jobs.runs import SlurmQueue
from launcher.study.collect import collect_results
from launcher.study.plan import StudyPlan
from launcher.study.prepare import refuse_lowered_budget
from launcher.study.run_progress import next_tasks, note_broken, task_progress
from tests.made_runs import JOB, MadeRun, job, slurm_says
from tests.studies import pace, plan, score
from trainer.core.fields import Refused


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks a cluster unless a test says what it answers."""
    slurm_says(monkeypatch, None, found=False)


def names(made: StudyPlan) -> list[str]:
    return [f"{task.run.path.name} {task.images} {task.seed_set}" for task in next_tasks(made, retry=False)[1]]


def test_equal_images_are_whole_steps_of_each_arm_and_never_more(tmp_path: Path) -> None:
    made = plan(tmp_path)
    assert [made.images(arm) for arm in "abc"] == [992, 992, 960]
    with pytest.raises(Refused, match="less than one step of arm 'c'"):
        plan(tmp_path, budget={"images": 50}).images("c")


def test_equal_arithmetic_gives_dearer_arms_fewer_images(tmp_path: Path) -> None:
    made = plan(tmp_path, budget={"flops": 6.4e9})
    assert [made.images(arm) for arm in "abc"] == [6_400, 3_200, 1_600]


def test_equal_seconds_are_images_at_the_speed_that_each_arm_has_shown(tmp_path: Path) -> None:
    made = plan(tmp_path, budget={"seconds": 20.0})
    assert names(made) == ["a 2560 None", "b 2560 None", "c 5120 None"]
    pace(made, "a", 64.0)
    pace(made, "b", 32.0)
    assert names(made) == ["c 5120 None"]
    pace(made, "c", 32.0)
    assert names(made)[:3] == ["a-s0 1280 report", "b-s0 640 report", "c-s0 640 report"]


def test_a_speed_is_known_once_all_its_rows_are_there(tmp_path: Path) -> None:
    made = plan(tmp_path, budget={"seconds": 20.0})
    pace(made, "a", 64.0, 4)
    assert not made.knows_length("a")


@pytest.mark.parametrize("starts", [(1, 4), (3, 2), (4, 1)])
def test_a_speed_is_taken_within_one_start(tmp_path: Path, starts: tuple[int, ...]) -> None:
    made = plan(tmp_path, budget={"seconds": 20.0})
    pace(made, "a", 64.0, *starts)
    assert made.images_per_s("a") == pytest.approx(64.0)
    pace(made, "b", float("inf"), *starts)
    assert not made.knows_length("b"), "two rows at the same time tell no speed"


def test_an_arm_without_a_speed_has_failed_and_gets_no_other_budget(tmp_path: Path) -> None:
    made = plan(tmp_path, budget={"seconds": 20.0}, seeds=1)
    pace(made, "a", 64.0)
    pace(made, "b", 32.0)
    assert collect_results(made).entries == (), "speeds are still measured"
    run = MadeRun(made.folder.pace("c").path)
    run.event("start", -10, owner="a run on this machine")
    speeds = next(iter(made.stages()))
    note_broken(speeds[2], "trainer ended with 1: out of memory")
    assert names(made) == ["a-s0 1280 report", "b-s0 640 report"]
    found = collect_results(made).entries
    assert [(e.arm, e.status) for e in found] == [("c", "failed"), ("a", "waiting"), ("b", "waiting")]
    assert (found[0].run, found[0].role, found[0].reason) == (
        "pace/c",
        "compare",
        "trainer ended with 1: out of memory",
    )
    assert next_tasks(made, retry=True) == (0, [speeds[2]])
    number, others = next_tasks(made, retry=True, tried={speeds[2]})
    assert (number, [task.arm for task in others]) == (1, ["a", "b"])
    with pytest.raises(Refused, match="the speed of arm 'c' is not known"):
        made.images("c")


def test_a_short_run_that_ended_without_a_speed_has_failed(tmp_path: Path) -> None:
    made = plan(tmp_path, budget={"seconds": 20.0})
    run = MadeRun(made.folder.pace("a").path)
    pace(made, "a", 64.0, 1, 1, 1, 1, 1)
    run.event("start", -10, owner="a run on this machine")
    run.event("end", -5, outcome="finished")
    found = task_progress(made, next(iter(made.stages()))[0], SlurmQueue())
    assert found.status == "failed"
    assert f"remove {run.folder} and use --retry" in found.reason


def test_a_budget_below_what_a_run_has_seen_is_refused(tmp_path: Path) -> None:
    made = plan(tmp_path, halving={"rungs": 2, "keep": 0.5, "seeds": 1}, budget={"images": 1_024})
    for task in next_tasks(made, retry=False)[1]:
        score(made, task, 3.0)
    refuse_lowered_budget(made)
    raised = plan(tmp_path, halving={"rungs": 2, "keep": 0.5, "seeds": 1}, budget={"images": 2_048})
    refuse_lowered_budget(raised)
    lowered = plan(tmp_path, halving={"rungs": 2, "keep": 0.5, "seeds": 1}, budget={"images": 900})
    with pytest.raises(Refused, match="a, seed 1000 has seen 256 images already, but is to be measured at 224"):
        refuse_lowered_budget(lowered)


def test_only_what_is_missing_is_done_and_seeds_can_be_added(tmp_path: Path) -> None:
    made = plan(tmp_path)
    assert names(made) == [f"{arm}-s{seed} {made.images(arm)} report" for seed in (0, 1) for arm in "abc"]
    for stage in made.stages():
        for task in stage[:-1]:
            score(made, task, 10.0)
    assert names(made) == ["c-s1 960 report"]
    more = replace(made, settings=replace(made.settings, seeds=(0, 1, 2)))
    assert names(more) == ["c-s1 960 report", "a-s2 992 report", "b-s2 992 report", "c-s2 960 report"]
    otherwise = plan(tmp_path, evaluation={"num_samples": 700})
    assert len(names(otherwise)) == 6, "what was measured otherwise is measured again"


def test_halving_leaves_arms_behind_and_compares_on_other_seeds(tmp_path: Path) -> None:
    made = plan(tmp_path, halving={"rungs": 2, "keep": 0.5, "seeds": 2}, budget={"images": 1_024})
    assert names(made) == [f"{arm}-s{seed} 256 select" for seed in (1_000, 1_001) for arm in "abc"]
    scores = {"a": (9.0, 5.0), "b": (8.0, 8.0), "c": (1.0, 2.0)}  # a: one good run, and the better mean of a and b
    for task in next_tasks(made, retry=False)[1]:
        score(made, task, scores[task.arm][task.seed - 1_000])
    assert names(made) == [f"{arm}-s{seed} 512 select" for seed in (1_000, 1_001) for arm in "ac"]
    for task in next_tasks(made, retry=False)[1]:
        score(made, task, 3.0 if task.arm == "a" else 4.0)
    assert names(made) == ["a-s0 1024 report", "a-s1 1024 report"]
    found = collect_results(made)
    assert [(rung.amount, rung.kept) for rung in found.rungs] == [(256.0, ("a", "c")), (512.0, ("a",))]
    assert found.rungs[0].scores == {"a": 7.0, "b": 8.0, "c": 1.5}
    told = {(e.arm, e.role, e.status) for e in found.entries}
    assert told == {
        ("a", "select", "finished"),
        ("b", "select", "stopped-by-halving"),
        ("c", "select", "stopped-by-halving"),
        ("a", "compare", "waiting"),
    }
    assert {e.reason for e in found.entries if e.arm == "b"} == {"its arm was left behind at rung 1"}


def test_a_failure_stops_nobody_and_is_tried_again_on_request(tmp_path: Path) -> None:
    made = plan(tmp_path, seeds=1)
    a, b, c = next(iter(made.stages()))
    score(made, a, 4.0)
    for task in (b, c):
        run = MadeRun(task.run.path)
        run.event("start", -10, owner="a run on this machine")
    note_broken(b, "trainer ended with 1: NaN or Inf at 64 images")
    assert [task.arm for task in next_tasks(made, retry=False)[1]] == ["c"], "c was only killed: nobody saw it fail"
    assert [task.arm for task in next_tasks(made, retry=True)[1]] == ["b", "c"]
    told = [(e.status, e.reason) for e in collect_results(made).entries]
    assert told[:2] == [("finished", ""), ("failed", "trainer ended with 1: NaN or Inf at 64 images")]


def test_a_run_whose_figure_is_no_number_has_failed(tmp_path: Path) -> None:
    made = plan(tmp_path, seeds=1)
    for task, value in zip(next(iter(made.stages())), (4.0, None, float("nan")), strict=True):
        score(made, task, value)
    assert next_tasks(made, retry=False)[1] == []
    assert [e.status for e in collect_results(made).entries] == ["finished", "failed", "failed"]
    assert collect_results(made).entries[1].reason == "fid could not be measured"


def test_what_is_queued_or_trained_is_not_done_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(tmp_path, seeds=1)
    task = next(iter(made.stages()))[0]
    run = MadeRun(task.run.path)
    run.submitted()
    slurm_says(monkeypatch, job("PENDING", "Resources"))
    queued = task_progress(made, task, SlurmQueue())
    assert (queued.status, queued.live) == ("waiting", True)
    assert [t.arm for t in next_tasks(made, retry=True)[1]] == ["b", "c"]
    slurm_says(monkeypatch, job("RUNNING"))
    run.began(after_s=-5)
    run.event("start", -4, owner=f"Slurm job {JOB}")
    assert task_progress(made, task, SlurmQueue()).status == "running"
    run.ended(run.began(after_s=-5), Cause.CRASHED, Decision.STOP, "out of memory")
    failed = task_progress(made, task, SlurmQueue())
    assert (failed.status, failed.reason, failed.live) == ("failed", "crashed (out of memory)", False)


def test_what_a_run_used_is_added_up_over_its_starts(tmp_path: Path) -> None:
    made = plan(tmp_path, seeds=1)
    task = next(iter(made.stages()))[0]
    run = MadeRun(task.run.path)
    run.submitted()
    run.ended(run.began(0, after_s=-1_000), Cause.PREEMPTED, Decision.GO_ON, "saved")
    run.steps((320, 10.0, 50.0), (640, 20.0, 50.0), after_s=-990)
    run.ended(run.began(1, after_s=-500), Cause.FINISHED, Decision.END)
    run.steps((960, 30.0, 50.0), (992, 31.0, 50.0), after_s=-490)  # later on its own clock than the first start ended
    score(made, task, 4.0, floor=2.5)
    found = collect_results(made)
    entry = found.entries[0]
    assert (entry.seconds, entry.node_seconds) == (51.0, 102.0)
    assert (entry.restarts, entry.preemptions, entry.images_seen, entry.flops) == (1, 1, 992, 992e6)
    assert entry.score
    assert (entry.score.value, entry.score.low, entry.score.high) == (4.0, 0.5, 4.0)
    assert list(entry.figures) == ["fid_infinity_500/vgg"], "the figure that decides is not taken for another"
    assert (found.metric, found.evaluation.extractor, found.evaluation.floor) == ("fid_500/vgg", "vgg", 2.5)


def test_an_evaluation_is_due_when_its_run_is_trained(tmp_path: Path) -> None:
    made = plan(tmp_path)
    task = next(iter(made.stages()))[0]
    run = MadeRun(task.run.path)
    assert EvaluationTarget.of(run.run) is None
    target = made.target(task)
    assert target
    target.save(run.run)
    assert EvaluationTarget.of(run.run) == target
    run.checkpoint(task.images - 32)
    assert not target.due(run.run)
    run.checkpoint(task.images)
    assert target.due(run.run)
    assert f"--checkpoint {task.images:012d}-r00 --seed-set report" in " ".join(target.command(run.run, 2))
    score(made, task, 3.0)
    assert not target.due(run.run)


def test_a_study_is_read_back_with_the_seeds_that_were_added(tmp_path: Path) -> None:
    made = replace(plan(tmp_path / "study"), home=tmp_path, project={"seed": 3})
    text = 'data = "shards"\nseeds = 2\n[budget]\nimages = 1000\n'
    text += "".join(f'[arms.{arm}]\nrecipe = "dcgan-32"\n' for arm in "abc")
    settings = replace(made.settings, seeds=(0, 1, 2), at_once=3, data=tmp_path / "shards")
    made = replace(made, settings=settings, resources=ResourceRequest(nodes="2", after=tmp_path / "other"))
    made.save(text)
    assert StudyPlan.open(made.folder) == made
    made.folder.plan.write_text("{}")
    with pytest.raises(Refused, match="is of another version"):
        StudyPlan.open(made.folder)
