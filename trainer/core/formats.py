"""The format of files in the folders of runs and studies, and what each format calls otherwise than the one before.

To rename a setting, or to add one that changes bits, write a line in SETTINGS or ADDED under SCHEMA. Raise SCHEMA first
if a release has written files of it; the aliases of the names before (aliases.py) then end by themselves. A new setting
whose default gives the bits of before needs no line: declare it `later_identity` (fields.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCHEMA = 2  # of all that this version writes into the folders of runs and studies
FIRST = 1  # of files that do not say it

Values = Mapping[str, Any]
Names = Mapping[str, str]
"""Old name: new name, each dotted; that of a group stands for all in it."""

SETTINGS: dict[int, Names] = {2: {"sentinel": "collapse"}}
"""By format: the settings that it calls otherwise than the one before."""
ADDED: dict[int, Values] = {2: {}}
"""By format: the identity settings that the one before had not, with the values that give its bits."""
SCALARS: dict[int, Names] = {
    2: {
        "sentinel": "collapse_monitor",
        "collapse_monitor.state": "collapse_monitor.health",
        "collapse_monitor.before": "collapse_monitor.previous_health",
        "collapse_monitor.badness": "collapse_monitor.severity",
        "collapse_monitor.size": "collapse_monitor.magnitude",
        "collapse_monitor.last.size": "collapse_monitor.last.magnitude",
        "collapse_monitor.best.size": "collapse_monitor.best.magnitude",
        "collapse_monitor.last.strangeness": "collapse_monitor.last.distance_to_data",
        "collapse_monitor.best.strangeness": "collapse_monitor.best.distance_to_data",
    }
}
"""By format: the values of a state (state.json) that it calls otherwise than the one before."""
TENSORS: dict[int, Names] = {2: {"memory": "running_scalars"}}
"""By format: the same for tensors (state.safetensors)."""
COLUMNS: dict[int, Names] = {
    2: {
        "sentinel": "collapse",
        "collapse/state": "collapse/health",
        "collapse/size": "collapse/magnitude",
        "collapse/strangeness": "collapse/distance_to_data",
    }
}
"""By format: the same for columns of metrics.jsonl, whose names have / in place of a dot."""
EVENTS: dict[int, Names] = {2: {"sentinel": "collapse alarm"}}
"""By format: the kinds of events.jsonl that it calls otherwise than the one before."""
