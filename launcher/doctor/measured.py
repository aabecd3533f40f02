"""What the doctor's probe measures on a node, and how the nodes tell one another: by files that all of them see."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from shards.atomic_files import write_atomically

WAIT_S = 120.0  # network file systems remember for up to a minute that a file was not there
POLL_S = 0.01


@dataclass(frozen=True)
class Reached:
    """What one node has seen of another over TCP."""

    rank: int
    node: str
    round_trip_s: float = 0.0
    """Of the fastest of some exchanges."""
    offset_s: float = 0.0
    """Its clock minus this node's, to half the round trip."""
    problem: str = ""


@dataclass(frozen=True)
class Disk:
    """What the shared folder does on one node."""

    kind: str
    """Of file system."""
    free_bytes: int
    total_bytes: int
    rename: str = ""
    """What is wrong with replacing a file by renaming; empty: nothing."""
    link: str = ""
    """What is wrong with hard links."""
    fsync_s: tuple[float, ...] = ()
    write_mb_s: float | None = None
    """Of one large file with its fsync; the first node measures it."""


@dataclass(frozen=True)
class GpuRank:
    """What one rank of the probe has measured: one a GPU, as a run has them."""

    rank: int
    node: str
    name: str = ""
    """Of its GPU; empty: it sees none."""
    exchange_s: float | None = None
    """Of one exact reduction of EXCHANGE_MB over all ranks."""
    inside_mb_s: float | None = None
    """To and from another GPU of its node, while all others exchange as well."""
    between_mb_s: float | None = None
    """The same, of another node."""
    inside_via: tuple[str, ...] = ()
    """The ways that NCCL has taken, as it calls them: P2P/CUMEM, SHM/direct, NET/IB, NET/Socket."""
    between_via: tuple[str, ...] = ()
    peers: int = 0
    """GPUs of the node whose memory its own can read."""
    nvlinks: int | None = None
    """That are up; None: nvidia-ml-py is not installed, or there is nothing to ask."""
    infiniband: tuple[str, ...] = ()
    """Adapters of the node."""
    problem: str = ""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> GpuRank:
        """Read plain values."""
        built: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**built)


@dataclass(frozen=True)
class Probe:
    """What was measured on one node."""

    rank: int
    node: str
    boot: str
    """Names the machine: two nodes of a development cluster have the same."""
    address: str
    interface: str | None
    """The one that leads to the first node."""
    interfaces: tuple[str, ...]
    python: str
    import_s: float
    """How long it took to load torch and the rest."""
    versions: Mapping[str, str]
    environment: Mapping[str, object]
    reached: tuple[Reached, ...] = ()
    exchange_s: float | None = None
    """Of one exact reduction of EXCHANGE_MB over all nodes."""
    disk: Disk | None = None
    visible_s: tuple[float, ...] = ()
    """How long what the first node wrote took to be seen here."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """What went wrong, by what was being measured."""
    gpus: tuple[GpuRank, ...] = ()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Probe:
        """Read what `ProbeMessages.write` wrote."""
        built: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        built["reached"] = tuple(Reached(**one) for one in values["reached"])
        built["gpus"] = tuple(map(GpuRank.from_json, values["gpus"]))
        if disk := values["disk"]:
            built["disk"] = Disk(**disk | {"fsync_s": tuple(disk["fsync_s"])})
        return cls(**built)


@dataclass(frozen=True)
class ProbeMessages:
    """What the probes of a job tell one another: plain values, through files in a folder."""

    folder: Path
    rank: int
    size: int

    def write(self, topic: str, value: Any) -> None:
        """Write this rank's value of a topic; a later one replaces it."""
        content = json.dumps(value).encode()
        # Without fsync: it is read within seconds by the other probes, and removed with the folder.
        write_atomically(self.folder / f"{topic}-{self.rank}.json", content, durable=False)

    def read(self, topic: str, rank: int) -> Any:
        """Return a rank's value of a topic; None: it has written none yet."""
        try:
            # Opened by its name at each call: a file that is kept open would not show the one that has replaced it.
            return json.loads((self.folder / f"{topic}-{rank}.json").read_text())
        except (OSError, ValueError):
            return None

    def wait_for_all(self, topic: str, timeout_s: float = WAIT_S) -> dict[int, Any]:
        """Return each rank's value of a topic, as soon as all have written; after the time-out, of those that have."""
        said: dict[int, Any] = {}
        deadline = time.monotonic() + timeout_s
        while True:
            new = {rank: self.read(topic, rank) for rank in range(self.size) if rank not in said}
            said |= {rank: value for rank, value in new.items() if value is not None}
            if len(said) == self.size or time.monotonic() > deadline:
                return dict(sorted(said.items()))
            time.sleep(POLL_S)

    def wait_for_first(self, topic: str, timeout_s: float = WAIT_S) -> Any:
        """Return the first rank's value of a topic, as soon as there is one.

        Raises:
            TimeoutError: it does not.
        """
        deadline = time.monotonic() + timeout_s
        while (said := self.read(topic, 0)) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the first node said nothing of its {topic} in {timeout_s:g} s")
            time.sleep(POLL_S)
        return said

    def write_probe(self, probe: Probe) -> None:
        """Write what was measured here."""
        self.write("probe", asdict(probe))

    def read_probes(self) -> list[Probe]:
        """Return what was measured so far."""
        found = (self.read("probe", rank) for rank in range(self.size))
        return [Probe.from_json(values) for values in found if values]
