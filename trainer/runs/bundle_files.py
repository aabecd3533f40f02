"""The files of a bundle, by name; without torch, for commands that only tell a bundle from a run."""

from __future__ import annotations

import json
from pathlib import Path

CARD, CONFIG, WEIGHTS, D_WEIGHTS = "README.md", "config.json", "model.safetensors", "discriminator.safetensors"
LABELS, CODE, ONNX, PROGRAM, SAMPLES = "labels.json", "generator.py", "generator.onnx", "generator.pt2", "samples.png"
MANIFEST = "manifest.json"


def is_bundle(folder: Path) -> bool:
    """Tell whether a folder holds a bundle: its config.json says so."""
    try:
        return "bundle" in json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError, TypeError):
        return False
