"""Where `trainer serve` begins: nothing here needs the packages of the extra."""

from __future__ import annotations

from trainer.core.fields import Refused
from trainer.core.stopping import Outcome
from trainer.serving.arguments import Serve


def start_serving(args: Serve) -> Outcome:
    """Serve until a signal asks for the end.

    Raises:
        Refused: it cannot be done, or FastAPI or uvicorn is not installed.
    """
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise Refused(f"a page is served with FastAPI and uvicorn ({error}): pip install lienzo[serve]") from error
    from trainer.serving.command import run_serve

    return run_serve(args)
