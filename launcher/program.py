"""The program `lienzo`: all commands of all packages under one name."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the number of threads changes the bits on a CPU

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import NoReturn

from command_line.streams import run
from command_line.suggestion import did_you_mean
from launcher import __main__ as launcher
from trainer import __main__ as trainer

VERBS = {
    "trainer": tuple(trainer.COMMANDS),
    "shards": ("build", "index", "verify", "inspect"),
    "slurm": ("up", "down", "status", "fail", "heal", "drain"),
}

HELP = """A distributed training job that learns to paint: any number of nodes, any interruption, the same bits.

  lienzo                  what to do next, here
{commands}

  lienzo shards VERB      from pictures to tar shards:
                          build, index, verify, inspect
  lienzo trainer VERB     one training process, and what a trained generator can do:
                          train, sample, interpolate, edit, stylemix, project, nearest, seeds, serve,
                          export, import, push, pull, evaluate, benchmark, fingerprint
  lienzo slurm VERB       a real Slurm with several nodes on this machine, for trials:
                          up, down, status, fail, heal, drain

  lienzo shards build MY_PICTURES --out my-shards --size 64
  lienzo submit dcgan-64 --data my-shards
  lienzo trainer sample runs/NAME --out grid.png

What a command takes: lienzo COMMAND --help, or --help-all for all of it. `python -m launcher COMMAND` is the
same as `lienzo COMMAND`, and `python -m shards VERB` as `lienzo shards VERB`. lienzo --version prints the version.

Exit codes: 0 finished, 1 failed, 2 refused (bad input), 75 interrupted and saved (resume goes on),
130 stopped at once by Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of any package and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else ""
    if name in ("-h", "--help"):
        lines = [f"  lienzo {name:<17}{command.__doc__}" for name, command in launcher.COMMANDS.items()]
        print(HELP.format(commands="\n".join(lines)))
        return 0
    if name == "--version":
        print(version("lienzo"))
        return 0
    if name in VERBS:
        commands: Callable[[Sequence[str]], int] = import_module(f"{name}.__main__").main
        return commands(arguments[1:])
    if not name:
        from launcher.cli.next_step import print_next_step

        return print_next_step()
    if name not in launcher.COMMANDS:
        print(f"refused: there is no command {name!r}; {suggest(name)}", file=sys.stderr)
        return 2
    return launcher.main(arguments)


def suggest(name: str) -> str:
    """Return what a user may have meant by a command that there is none of."""
    for package, verbs in VERBS.items():
        if name in verbs:  # such as `lienzo train`
            return f"did you mean 'lienzo {package} {name}'?"
    return did_you_mean(name, [*launcher.COMMANDS, *VERBS], "see: lienzo --help")


def start() -> NoReturn:
    """Be the program."""
    run(main)


if __name__ == "__main__":
    start()
