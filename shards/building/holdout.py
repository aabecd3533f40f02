"""The two sides of the hold-out: each picture's side is drawn from a keyed hash of its content.

The key is the hash of the picture as it is stored, which the table has too. So the same picture under two names is
never on both sides, and the side of each sample can be computed again from the table alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

SPLITS = ("train", "holdout")
TRAIN, HOLDOUT = range(len(SPLITS))


@dataclass(frozen=True)
class HoldOut:
    """How the hold-out is drawn."""

    share: float
    """Probability of a picture to be held out."""
    seed: int

    def side_of(self, image_hash: int) -> int:
        """Return TRAIN or HOLDOUT, for the XXH3-64 of a picture's stored bytes.

        It does not depend on the other pictures: when some are added, no picture changes sides.
        """
        key = self.seed.to_bytes(16, "little", signed=True)
        content = image_hash.to_bytes(8, "little")
        digest = hashlib.blake2b(content, digest_size=8, key=key, person=b"holdout")
        return HOLDOUT if int.from_bytes(digest.digest(), "little") < self.share * 2**64 else TRAIN
