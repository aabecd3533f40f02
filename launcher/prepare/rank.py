"""The process of a preparation's job: `python -m launcher.prepare.rank FOLDER share|finish`, started by srun.

Signals are only noted from the first moment on, and answered before the next picture. The worker processes of a build
load this module again, and leave signals alone.
"""

from __future__ import annotations

from trainer.core.stopping import StopRequest

if __name__ == "__main__":
    stop = StopRequest()
    stop.install()

    import sys
    from pathlib import Path

    from launcher.prepare.share_job import run_job

    sys.exit(run_job(Path(sys.argv[1]), sys.argv[2], stop))
