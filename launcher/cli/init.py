"""`launcher init`: write the project's defaults, and a profile of the cluster."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from command_line.help_page import HelpPage
from launcher.cli import site_profile
from shards.dataset.index import DataError, Index
from shards.storage.argument import OptionalPlace
from trainer.core.fields import Refused
from trainer.runs.config_defaults import PROJECT_FILE

TEMPLATE = """\
# Defaults of this project. Any setting of `python -m launcher submit --help-all` may stand here;
# the command line wins over this file, and this file over the recipe.
{data}{profile}
[tracking]
project = {project}
"""


@dataclass(frozen=True)
class Init:
    """Write lienzo.toml, the project's defaults, into the current folder."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "--data my-shards --project paintings": "defaults of the project",
            "--profile site.toml": "and of this cluster",
        },
    )

    data: OptionalPlace = None
    """The folder of shards; default: the demo's."""
    project: str = "lienzo"
    """The W&B project."""
    profile: Path | None = None
    """Write a site profile of the Slurm cluster that is here into this .toml file, and name it in lienzo.toml."""


def run_init(args: Init) -> int:
    """Carry out `init`.

    Raises:
        Refused: a file exists or cannot be written, the data is not there, or there is no cluster to ask.
    """
    line = '# data = "shards"  # a folder that `python -m shards build` made; without it, the demo\'s pictures\n'
    if args.data:
        try:
            Index.open(args.data)
        except DataError as error:
            raise Refused(str(error)) from error
        line = f"data = {json.dumps(str(args.data))}\n"  # a JSON string is a TOML string
    exists = PROJECT_FILE.exists()
    if exists and (args.data or not args.profile):
        raise Refused(f"{PROJECT_FILE} exists already: edit it, or remove it first")
    profile = f"profile = {json.dumps(str(args.profile))}\n" if args.profile else ""
    if args.profile:
        site_profile.write_profile(args.profile)
        print(f"wrote {args.profile}: read it and adapt it")
    if exists:
        print(f"{PROJECT_FILE} exists already; put this line above its first [table]: {profile.strip()}")
        return 0
    try:
        # "x": a file that somebody has made since it was looked for is not written over.
        with PROJECT_FILE.open("x") as file:
            file.write(TEMPLATE.format(data=line, profile=profile, project=json.dumps(args.project)))
    except OSError as error:
        raise Refused(f"{PROJECT_FILE} cannot be written: {error.strerror}") from error
    print(f"wrote {PROJECT_FILE}; next: python -m launcher submit")
    return 0
