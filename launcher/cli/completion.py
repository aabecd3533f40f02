"""`launcher completion`: a script that lets a shell complete what one types after `lienzo`."""

from __future__ import annotations

import io
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Union

import tyro

from command_line.help_page import HelpPage
from launcher.cli.cancel import Cancel
from launcher.cli.doctor import Doctor
from launcher.cli.evaluate import Evaluate
from launcher.cli.init import Init
from launcher.cli.logs import Logs
from launcher.cli.plugins import Plugins
from launcher.cli.recipes import Recipes
from launcher.cli.remove import Rm
from launcher.cli.report import Report
from launcher.cli.status import Status
from launcher.cli.study import Study
from launcher.cli.submit import Resume, Submit
from launcher.cli.sync import Sync
from launcher.cli.watch import Watch
from launcher.cli.workspace import Workspace
from launcher.prepare.arguments import Prepare
from shards.__main__ import Command as ShardsVerb
from slurm.__main__ import Command as SlurmVerb
from trainer.benchmark.arguments import Benchmark
from trainer.commands.edit import Edit
from trainer.commands.nearest import Nearest
from trainer.commands.project import Project
from trainer.commands.sample import Interpolate, Sample
from trainer.commands.seeds import Seeds
from trainer.commands.stylemix import Stylemix
from trainer.commands.train import Fingerprint, Train
from trainer.evaluation.arguments import Evaluate as EvaluateHere
from trainer.exporting.arguments import Export, Pull, Push
from trainer.importing.arguments import Import
from trainer.serving.arguments import Serve

HOW_TO_INSTALL = {
    "bash": "lienzo completion bash > ~/.local/share/bash-completion/completions/lienzo",
    "zsh": "lienzo completion zsh > ~/.zfunc/_lienzo, with fpath+=~/.zfunc before compinit in ~/.zshrc",
    "fish": "lienzo completion fish > ~/.config/fish/completions/lienzo.fish",
}
# Where no option fits, bash completes files: run folders, above all.
FILES_IN_BASH = """
_lienzo() { _tyro_lienzo "$@"; [ -n "${COMPREPLY[*]}" ] || COMPREPLY=(); }
complete -o default -F _lienzo lienzo
"""


@dataclass(frozen=True)
class Completion:
    """Print a script that lets a shell complete lienzo's commands and options."""

    help_page: ClassVar[HelpPage] = HelpPage(examples={"bash": "the script, with a line on how to install it"})

    shell: tyro.conf.Positional[Literal["bash", "zsh", "fish"]]
    """Your shell."""


KINDS: tuple[type, ...] = (
    Prepare,
    Submit,
    Resume,
    Study,
    Evaluate,
    Recipes,
    Status,
    Watch,
    Report,
    Logs,
    Cancel,
    Rm,
    Sync,
    Workspace,
    Init,
    Plugins,
    Doctor,
    Completion,
)
TrainerVerb = (
    Train
    | Sample
    | Interpolate
    | Seeds
    | Edit
    | Stylemix
    | Project
    | Nearest
    | Serve
    | EvaluateHere
    | Benchmark
    | Fingerprint
    | Export
    | Import
    | Push
    | Pull
)


@dataclass(frozen=True)
class Trainer:
    """One training process, and what a trained generator can do."""

    verb: Annotated[TrainerVerb, tyro.conf.arg(name="")]
    """What to do."""


@dataclass(frozen=True)
class Shards:
    """From pictures to tar shards."""

    verb: Annotated[ShardsVerb, tyro.conf.arg(name=""), tyro.conf.OmitArgPrefixes]
    """What to do."""


@dataclass(frozen=True)
class Slurm:
    """A real Slurm with several nodes on this machine, for trials."""

    verb: Annotated[SlurmVerb, tyro.conf.arg(name="")]
    """What to do."""


PACKAGES: tuple[type, ...] = (Shards, Trainer, Slurm)


def run_completion(args: Completion) -> int:
    """Carry out `completion`."""
    print(completion_script(args.shell), end="")
    return 0


def completion_script(shell: str) -> str:
    """Return the script for a shell, with a note on how to install it."""
    everything: Any = Union[(*KINDS, *PACKAGES)]  # of a tuple
    said = io.StringIO()
    # tyro prints the script and ends the process, as it does after --help.
    with redirect_stdout(said), suppress(SystemExit):
        tyro.cli(everything, args=["--tyro-print-completion", shell], prog="lienzo")
    first, _, rest = said.getvalue().lstrip().partition("\n")  # zsh wants its own line first
    return (
        f"{first}\n# To install: {HOW_TO_INSTALL[shell]}\n{rest.rstrip()}\n{FILES_IN_BASH if shell == 'bash' else ''}"
    )
