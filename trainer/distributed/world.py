"""This process's place among the others, as a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """Rank `rank` of `size` processes."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Tell whether this is the process that writes the run folder."""
        return self.rank == 0

    def share_of(self, rank: int, count: int) -> range:
        """Return a rank's contiguous share of `count` things; shares differ by at most one."""
        # Contiguous and in the order of ranks, so that a share is a few whole subtrees of the summation tree.
        return range(rank * count // self.size, (rank + 1) * count // self.size)

    def share(self, count: int) -> range:
        """Return this process's own share of `count` things."""
        return self.share_of(self.rank, count)
