"""mmcv's compiled ops, as many as MMDetection's models need, in plain torch, for an mmcv without them (`mmcv-lite`).

It knows nothing of detectors or files.
"""

from models.detector.mmcv_ops.extension import install
from models.detector.mmcv_ops.switch import using

__all__ = ["install", "using"]
