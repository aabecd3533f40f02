"""`launcher init`: write the project's defaults."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from shards.index import DataError, Index
from trainer.resolve import PROJECT_FILE
from trainer.settings import Refused

TEMPLATE = """\
# Defaults of this project. Any setting of `python -m launcher submit --help` may stand here;
# the command line wins over this file, and this file over the recipe.
{data}
[tracking]
project = {project}
"""


@dataclass(frozen=True)
class Init:
    """Write lienzo.toml, the project's defaults, into the current folder."""

    data: Path | None = None
    """The folder of shards; default: the demo's."""
    project: str = "lienzo"
    """The W&B project."""


def run_init(args: Init) -> int:
    """Carry out `init`.

    Raises:
        Refused: the file exists, or the data is not there.
    """
    line = '# data = "shards"  # a folder that `python -m shards build` made; without it, the demo\'s pictures\n'
    if args.data:
        try:
            Index.open(args.data)
        except DataError as error:
            raise Refused(str(error)) from error
        line = f"data = {json.dumps(str(args.data))}\n"  # a JSON string is a TOML string
    try:
        with PROJECT_FILE.open("x") as file:
            file.write(TEMPLATE.format(data=line, project=json.dumps(args.project)))
    except FileExistsError:
        raise Refused(f"{PROJECT_FILE} exists already: edit it, or remove it first") from None
    except OSError as error:
        raise Refused(f"{PROJECT_FILE} cannot be written: {error.strerror}") from error
    print(f"wrote {PROJECT_FILE}; next: python -m launcher submit")
    return 0
