"""Filters of ADA as constant matrices that act on the rows and on the columns of a picture: y = M x Mᵀ.

A matrix holds the filter, the change of sampling rate and the reflection at the borders at once; pictures are small
enough for its zeros not to matter, and unlike reflection padding it has a deterministic backward pass on CUDA.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

Array = npt.NDArray[np.float64]

# Low-pass decomposition filters of the least asymmetric orthogonal wavelets (Daubechies 1992, table 6.3).
SYM2 = np.array([-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025])
SYM6 = np.array(
    [
        *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
        *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
        *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
    ]
)
OVERHANG = 3.5
"""Pixels by which `upsampling_matrix` reaches over the outermost ones of the picture, on each side."""


def reflection_matrix(size: int, margin: int) -> Array:
    """Return the matrix (size + 2 margin, size) that continues a row on both sides as a mirror would."""
    fold = np.abs((np.arange(-margin, size + margin) + size - 1) % (2 * size - 2) - (size - 1))
    return np.eye(size)[fold]


def correlation_matrix(taps: Array, size: int, step: int) -> Array:
    """Return the matrix whose row i, of `size`, holds the taps from column `step` i on."""
    matrix = np.zeros((size, step * (size - 1) + len(taps)))
    for i in range(size):
        matrix[i, step * i : step * i + len(taps)] = taps
    return matrix


def band_filters() -> Array:
    """Return four zero-phase filters (4, 43) of one octave each, the lowest first, whose sum is 1 (appendix B)."""
    low = np.convolve(SYM2, SYM2[::-1]) / 2  # H(z) H(1/z) / 2
    high = low * (-1.0) ** np.arange(-3, 4)  # H(-z) H(-1/z) / 2
    bands = np.ones((1, 1))
    # Each round moves the bands so far into the lower half of the spectrum, and adds the upper half as a new one.
    for _ in range(3):
        doubled = np.zeros((len(bands), 2 * bands.shape[1] - 1))
        doubled[:, ::2] = bands
        lower = [np.convolve(band, low) for band in doubled]
        bands = np.stack([*lower, np.pad(high, (len(lower[0]) - len(high)) // 2)])
    return bands


@cache
def downsampling_matrix(size: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "size 2*size+10"]:
    """Return the matrix that halves the resolution: from the places -5/2, -4/2 … size + 4/2 to 0, 1 … size - 1.

    sym6's centre of mass is near its sixth tap, so the place 2i of the doubled resolution is pixel i.
    """
    return torch.tensor(correlation_matrix(SYM6 / np.sqrt(2), size, 2), device=device, dtype=dtype)


@cache
def upsampling_matrix(size: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "2*size+13 size"]:
    """Return the matrix that doubles the resolution: from 0, 1 … size - 1 to -OVERHANG … size - 1 + OVERHANG.

    It is the adjoint of `downsampling_matrix`, so that one after the other is the identity: the wavelet is orthogonal.
    """
    # Half the filter: the reflection continues the row as far as the filter reaches.
    margin = 6
    adjoint = correlation_matrix(SYM6 * np.sqrt(2), size + 2 * margin, 2).T @ reflection_matrix(size, margin)
    return torch.tensor(adjoint[10:-11], device=device, dtype=dtype)


@cache
def band_matrices(size: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "4 size size"]:
    """Return the matrices of the four bands; their sum is the identity."""
    filters = band_filters()
    mirror = reflection_matrix(size, filters.shape[1] // 2)
    return torch.tensor(
        np.stack([correlation_matrix(f, size, 1) @ mirror for f in filters]), device=device, dtype=dtype
    )
