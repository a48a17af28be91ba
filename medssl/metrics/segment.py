"""How far a predicted region and the drawn one overlap."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from medssl.errors import MedsslError


def dice(prediction: ArrayLike, target: ArrayLike) -> float:
    """Dice overlap of two masks of one shape, 2|A∩B| / (|A|+|B|), 0 to 1.

    Empty masks as the BraTS challenge scores them: both empty is 1 (the absence was right), one empty is 0 (a miss, or
    a false alarm). Never NaN, so that a mean over cases leaves none out.
    """
    prediction, target = np.asarray(prediction), np.asarray(target)
    if prediction.shape != target.shape:
        raise MedsslError(f"prediction has shape {prediction.shape}", expected=f"the target's, {target.shape}")
    if prediction.dtype != bool or target.dtype != bool:
        raise MedsslError(f"masks are {prediction.dtype} and {target.dtype}", expected="bool",
                          remedy="compare with a region's label first, e.g. mask == 2")
    total = np.count_nonzero(prediction) + np.count_nonzero(target)
    return 2 * np.count_nonzero(prediction & target) / total if total else 1.0
