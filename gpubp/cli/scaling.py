"""How the features of a run are scaled: one scale for pixels, which keep their relative size, else one for each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.data import Blocks, Standardizer, extremes

SHARED = "mean 0 for each feature, one scale for all"
OWN = "mean 0 and standard deviation 1 for each feature"
LEAST_PIXELS = 32  # a table of fewer features may have columns of one unit; no image is that small
LEAST_SPAN = 1 / 300  # of the shared range: a pixel that varies does so by a grey level, 1/255 of it, or more


def input_scaling(x: npt.NDArray[Any] | Blocks) -> tuple[str, Standardizer]:
    """The scaling of the features, and in words what it does.

    Pixels keep their relative size: each loses its mean, and all are divided by one scale, the root mean square of
    their standard deviations. A scale of its own would blow up a pixel that is hardly ever lit: 97.8 % in
    cross-validation on digits with 256,256, against 98.3 % with one for all. With 512,256 one scale gave 98.6 % and
    plain 0..1 98.5 %; on a validation part of mnist with 512,512 both gave 98.6 %, means of three seeds.
    """
    own = Standardizer.fit(x)
    low, high = extremes(x)
    if not _are_pixels(low, high):
        return OWN, own
    varied = own.scale[low < high]
    largest = varied.max()  # taken out before squaring: nothing overflows
    scale = largest * np.sqrt(np.square(varied / largest).sum() / x.shape[1])
    return SHARED, Standardizer(own.mean, np.full_like(own.scale, scale))


def _are_pixels(low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]) -> bool:
    """Whether features with these extremes, (n_features,) each, are pixels: wherever they come from, by their values.

    At least 32, of which at least half share both extremes, and none that varies spans less than 1/300 of that range:
    one scale would hide a column of small values, so columns of different units must never share one.
    """
    span, shared = high - low, (low == low.min()) & (high == high.max())
    if len(low) < LEAST_PIXELS or not span.any() or np.mean(shared) < 0.5:
        return False
    return bool((span[span > 0] >= LEAST_SPAN * span.max()).all())
