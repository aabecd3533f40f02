"""`launcher doctor`: try what a job will need, and say what is wrong and what to do."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import tyro
from rich.console import Console
from rich.markup import escape

from command_line.arguments import parse
from command_line.help_page import HelpPage
from launcher.doctor import gpus, links, nodes, run_facts, storage, timing
from launcher.doctor.finding import Finding
from launcher.doctor.plan import ProbePlan, time_limit
from launcher.doctor.run_facts import RunFacts
from launcher.doctor.start import Examined, probe_nodes
from launcher.jobs import checks, runs
from launcher.jobs.preparation import site_profile
from launcher.jobs.resource_request import ResourceRequest, node_range, use_slurm
from slurm import control
from slurm.profile import Profile
from slurm.records import Partition
from trainer.config.config import Config
from trainer.config.recipes import RECIPES
from trainer.core.fields import Refused
from trainer.runs.config_defaults import load_defaults
from trainer.runs.run_folder import RunFolder

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@dataclass(frozen=True)
class Doctor:
    """Try what a job needs, on the cluster's nodes or here, and judge a run's times. Exit code 1: a problem."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "": "try two nodes, or this machine",
            "runs/NAME": "and judge its saves, steps and failures",
            "--recipe stylegan2-256": "what fits into a GPU here",
        },
        everyday={
            "options": ("--nodes", "--partition", "--profile", "--json", "--recipe"),
        },
    )

    run: tyro.conf.Positional[Path | None] = None
    """A run folder: its file system is tried, and its saves, steps and failures are judged."""
    nodes: int | None = None
    """Try so many nodes; default: as many as the run's job has, else 2."""
    partition: str | None = None
    """Slurm's partition; default: the profile's, else the cluster's."""
    profile: str | None = None
    """A site profile: a .toml file, or the name of an example in slurm/profiles."""
    json: bool = False
    """Print the findings and all that was measured as JSON."""
    recipe: str | None = None
    """Look at nothing else: find the largest micro-batch of this recipe, with the settings that follow, that fits into
    the first GPU of this machine, and which of the recipe's own batches for 1, 8 and 32 GPUs do."""
    config: Annotated[Config, tyro.conf.arg(name="")] = Config()


def run_doctor(parsed: Doctor, arguments: Sequence[str]) -> int:
    """Carry out `doctor`.

    Raises:
        Refused: there is no such run, or the cluster has no such nodes.
    """
    if parsed.recipe:
        return examine_recipe(parsed, arguments)
    if parsed.config != Config():
        raise Refused("settings of a run say something with --recipe only; those of a run that exists: doctor RUN")
    args = parsed
    run = RunFolder(args.run) if args.run else None
    # Before any node is asked for: a folder that holds no run is refused without waiting in the queue.
    facts = run_facts.read_run_facts(run) if run else RunFacts()
    try:
        profile, where, size = choose_place(args, run)
        examined = examine_in(run.path if run else Path(), size, where, profile)
    except control.SlurmError as error:
        raise Refused(f"the cluster cannot be asked: {error}") from error
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    findings = judge_all(examined, facts, where, profile, size)
    if args.json:
        rows = {"findings": list(map(asdict, findings)), "nodes": list(map(asdict, examined.probes))}
        print(json.dumps(rows, indent=1))
    else:
        show_findings(findings)
    return 1 if any(finding.state == "problem" for finding in findings) else 0


def examine_recipe(parsed: Doctor, arguments: Sequence[str]) -> int:
    """Find the largest micro-batch of a recipe that fits into a GPU.

    Raises:
        Refused: there is no such recipe, or no GPU.
    """
    from launcher.doctor import memory  # torch, which takes seconds

    # The command line is read twice: the first time tells which recipe the defaults are of.
    defaults = replace(parsed, config=load_defaults(parsed.recipe, None))
    config = parse(Doctor, arguments, "python -m launcher doctor", defaults).config
    config.check()
    fits = memory.find_on_first_gpu(config)
    findings = [memory.judge_memory(config, fits), memory.judge_layouts(RECIPES[config.recipe], fits)]
    if parsed.json:
        print(json.dumps({"findings": list(map(asdict, findings)), "memory": asdict(fits)}, indent=1))
    else:
        show_findings(findings)
    return int(findings[0].state == "problem")


def choose_place(args: Doctor, run: RunFolder | None) -> tuple[Profile, Partition | None, int]:
    """Return the profile, the partition (None: this machine), and how many nodes to try.

    Raises:
        Refused: the cluster cannot give it.
    """
    resources = ResourceRequest(partition=args.partition, profile=args.profile)
    profile = site_profile(resources)
    if not use_slurm(resources):
        if args.nodes not in (None, 1) or args.partition:
            raise Refused("there is no Slurm here: without --nodes and --partition, the doctor looks at this machine")
        return profile, None, 1
    where = checks.choose_partition(args.partition or profile.partition, control.list_partitions())
    size = args.nodes
    if size is None:
        record = runs.record_of(run) if run else None
        # Two are enough to see what one node writes from another.
        size = node_range(record.nodes)[1] if record else min(2, where.total_nodes)
    node_range(str(size))
    checks.check_partition_limits(str(size), time_limit(where), 0, where)
    return profile, where, size


def examine_in(above: Path, size: int, where: Partition | None, profile: Profile) -> Examined:
    """Probe the nodes from a folder of our own below another, on the file system that a run lies on.

    Raises:
        Refused: it cannot be written.
    """
    try:
        # Hidden, so that nobody takes it for a run, and beside the runs, whose file system is under test.
        folder = Path(tempfile.mkdtemp(prefix=".doctor-", dir=above)).resolve()
    except OSError as error:
        raise Refused(f"{above.resolve()} cannot be written: {error.strerror}") from error
    there = f"{size} node{'s' * (size > 1)} of partition {where.name}" if where else "this machine"
    print(f"looking at {there}, from {folder.parent} …", file=sys.stderr)
    try:
        # All of a node, as a run has them: what they share shows only then.
        each = (profile.gpus_per_node or where.gpus_per_node) if where else 0
        return probe_nodes(ProbePlan(folder, size, where, each, profile))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def judge_all(
    examined: Examined, facts: RunFacts, where: Partition | None, profile: Profile, size: int
) -> list[Finding]:
    """Judge everything that was measured."""
    if examined.not_started:
        why = f"the probe's job did not run: {examined.not_started}"
        findings = [Finding("job", "problem", why, "a job of the same kind would not run either", "see: sinfo, squeue")]
    else:
        findings = nodes.judge_nodes(examined.probes, examined.missing, facts.environment)
    if examined.probes:
        findings += gpus.judge_gpus(examined.probes)
        findings += links.judge_links(examined.probes, profile.interface, facts)
        findings += storage.judge_storage(examined.probes, facts)
    return [*findings, *timing.judge_timing(facts, where, profile, size)]


def show_findings(findings: Sequence[Finding]) -> None:
    """Print a row for each finding; what it means and what to do are below it."""
    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        colour = COLOURS[finding.state]
        console.print(
            f"[{colour}]{finding.state:<9}[/{colour}][bold]{finding.check:<15}[/bold]{escape(finding.measured)}"
        )
        for mark, text in (("", finding.meaning), ("→ ", finding.todo)):
            if text:
                console.print(f"{' ' * 24}{mark}{escape(text)}")
    counts = {state: sum(finding.state == state for finding in findings) for state in ("problem", "warning")}
    said = ", ".join(f"{count} {state}{'s' * (count != 1)}" for state, count in counts.items() if count)
    console.print(f"\n{said or 'all is well'}")
