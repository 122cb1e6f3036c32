"""Other papers' weightings: the baselines of an ablation, one idea a file.

They are strategies like any author's, and use only what an author would use of the engine. All but `fixed` and
`floor` are rescaled to sum to the number of levels, which leaves the learning rate unchanged.
"""

from msbal.baselines.autobalance import Autobalance
from msbal.baselines.cov import CoV
from msbal.baselines.dwa import DWA
from msbal.baselines.fixed import Fixed
from msbal.baselines.floor import Floor
from msbal.baselines.gls import GLS
from msbal.baselines.grad_norm import GradNorm
from msbal.baselines.gramian import Gramian
from msbal.baselines.positives import Positives
from msbal.baselines.relobralo import ReLoBRaLo
from msbal.baselines.rlw import RLW
from msbal.baselines.slaw import SLAW
from msbal.baselines.softadapt import SoftAdapt
from msbal.baselines.stch import STCH
from msbal.baselines.stride import Stride
from msbal.baselines.uw import UW
from msbal.baselines.uw_so import UWSO

__all__ = [
    "DWA", "GLS", "RLW", "SLAW", "STCH", "UW", "UWSO", "Autobalance", "CoV", "Fixed", "Floor", "GradNorm", "Gramian",
    "Positives", "ReLoBRaLo", "SoftAdapt", "Stride",
]  # fmt: skip
