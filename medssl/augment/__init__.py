"""Sample -> views. Read transform.py first; policy.py puts all together.

Nothing acts along time: frame rate and start are chosen when the clip is read, and a heart played backwards, or a clip
rolled over its seam, is no heart.
"""

from medssl.augment.mask import BlockMask, block_grid
from medssl.augment.policy import TRANSFORMS, PolicyConfig, ViewPolicy
from medssl.augment.spatial import Spatial, SpatialConfig
from medssl.augment.transform import Transform, TransformConfig

__all__ = [
    "TRANSFORMS",
    "BlockMask",
    "PolicyConfig",
    "Spatial",
    "SpatialConfig",
    "Transform",
    "TransformConfig",
    "ViewPolicy",
    "block_grid",
]
