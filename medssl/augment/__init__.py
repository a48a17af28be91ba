"""Sample -> views. Read transform.py first; policy.py puts all together.

Along time only temporal.py acts, and only forwards: a heart played backwards, or a clip rolled over its seam, is no
heart.
"""

from medssl.augment.mask import BlockMask, block_grid
from medssl.augment.policy import TRANSFORMS, PolicyConfig, ViewPolicy
from medssl.augment.spatial import Spatial, SpatialConfig
from medssl.augment.temporal import Temporal, TemporalConfig
from medssl.augment.transform import Transform, TransformConfig

__all__ = [
    "TRANSFORMS",
    "BlockMask",
    "PolicyConfig",
    "Spatial",
    "SpatialConfig",
    "Temporal",
    "TemporalConfig",
    "Transform",
    "TransformConfig",
    "ViewPolicy",
    "block_grid",
]
