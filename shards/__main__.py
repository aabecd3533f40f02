"""`python -m shards build | index | verify | inspect`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from command_line.arguments import parse
from command_line.streams import run
from shards.building.add_options import options_given
from shards.building.build import run_build
from shards.building.options import Build
from shards.indexing.command import run_index
from shards.indexing.options import IndexTars
from shards.inspect import Inspect, run_inspect
from shards.verify import Verify, run_verify

DESCRIPTION = """From pictures to tar shards.

  python -m shards build MY_PICTURES --out my-shards   of a folder, an archive or a URL
  python -m shards inspect my-shards                   what they hold
  python -m shards verify my-shards                    whether each byte is as it was written

What a command takes: python -m shards COMMAND --help, or --help-all for all of it

Exit codes: 0 done, 1 damage was found, 2 refused, 75 interrupted."""
Command = (
    Annotated[Build, tyro.conf.subcommand("build")]
    | Annotated[IndexTars, tyro.conf.subcommand("index")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
    | Annotated[Inspect, tyro.conf.subcommand("inspect")]
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 damage was found, 2 refused, 75 interrupted."""
    args: Build | IndexTars | Verify | Inspect = parse(
        Command,
        argv,
        "python -m shards",
        description=DESCRIPTION,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    match args:
        case Build():
            return run_build(args, options_given(sys.argv[1:] if argv is None else argv))
        case IndexTars():
            return run_index(args)
        case Verify():
            return run_verify(args)
        case Inspect():
            return run_inspect(args)


if __name__ == "__main__":
    run(main)
