"""What other programs mean by the same words, so that their numbers can be stood beside.

Each value was read from their code; docs/metrics.md tells what follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Convention:
    """How a program turns pictures into its figures. All look at pictures of whole bytes, and compare all reals.

    Args:
        extractor: the network.
        resize: the filter before it.
        ddof: 1: unbiased covariances in FID; 0: sums divided by the number of pictures.
        kid_subsets, kid_subset_size: KID is the mean over so many random subsets of each side; 0: it has no KID.
        prdc_k: the neighbour that balls reach to, which stylegan3 and torch-fidelity look for among features of VGG16
            unless told otherwise; None: it has no precision and recall.
        prdc_closed: balls hold what lies exactly on them: ≤ in place of <.
        is_splits: Inception Score is the mean over so many parts of the fakes; 0: it has none.
    """

    extractor: str
    resize: str
    ddof: Literal[0, 1]
    kid_subsets: int
    kid_subset_size: int
    prdc_k: int | None
    prdc_closed: bool
    is_splits: int = 0


CONVENTIONS: dict[str, Convention] = {
    "pytorch-fid": Convention("inception-2015", "torch-bilinear", 1, 0, 0, None, False),
    "clean-fid": Convention("inception-2015", "clean", 1, 100, 1000, None, False),
    "stylegan3": Convention("inception-2015", "tf-bilinear", 0, 100, 1000, 3, True, 10),
    "torch-fidelity": Convention("inception-2015", "tf-bilinear", 1, 100, 1000, 3, True, 10),
}
