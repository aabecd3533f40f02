"""The programs whose checkpoints can be imported: one file each, one line here."""

from __future__ import annotations

from trainer.importing import biggan, fastgan, r3gan, studiogan, stylegan2_ada, stylegan3
from trainer.importing.mapping import Program

PROGRAMS: dict[str, Program] = {
    "stylegan2-ada": stylegan2_ada.PROGRAM,
    "stylegan3": stylegan3.PROGRAM,
    "r3gan": r3gan.PROGRAM,
    "biggan": biggan.PROGRAM,
    "fastgan": fastgan.PROGRAM,
    "studiogan": studiogan.PROGRAM,
}
