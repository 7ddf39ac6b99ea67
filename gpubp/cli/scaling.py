"""How the features of a run are scaled: one scale for pixels, which keep their relative size, else one for each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpubp.data import Standardizer

SHARED = "mean 0 for each feature, one scale for all"
OWN = "mean 0 and standard deviation 1 for each feature"


def input_scaling(x: npt.NDArray[Any]) -> tuple[str, Standardizer]:
    """The scaling of the features, and in words what it does.

    Features of which at least half share both their least and their largest value, as pixels do, keep their relative
    size: each loses its mean, and all are divided by one scale, the root mean square of their standard deviations. A
    scale of its own would blow up a pixel that is hardly ever lit: 97.8 % in cross-validation on digits with 256,256,
    against 98.3 % with one for all. With 512,256 one scale gave 98.6 % and plain 0..1 98.5 %; on a validation part of
    mnist with 512,512 both gave 98.6 %, means of three seeds.
    """
    own = Standardizer.fit(x)
    low, high = x.min(axis=0), x.max(axis=0)
    varied = own.scale[low < high]
    if not varied.size or np.mean((low == low.min()) & (high == high.max())) < 0.5:
        return OWN, own
    largest = varied.max()  # taken out before squaring: nothing overflows
    scale = largest * np.sqrt(np.square(varied / largest).sum() / x.shape[1])
    return SHARED, Standardizer(own.mean, np.full_like(own.scale, scale))
