"""A feature network that no discriminator trains on: ResNet-50 v2 to stride 16, its pooled third stage.

The network's code and weights are not part of this project: `load_judge` reads `resnet50v2.py` (class
`R50v2`) and `resnet50v2_to_stride16.safetensors` from a folder. **The code in it is run.** Feature vectors
have 1,024 entries: where the test split has fewer images, read KID beside the Frechet distance.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from dpsims.config import BackboneConfig
from dpsims.evaluation.features import PooledFeatures
from dpsims.models import pretrained
from dpsims.models.backbones import Backbone
from dpsims.models.pyramids import Pyramid

NAME = "judge"
CODE, WEIGHTS = "resnet50v2.py", "resnet50v2_to_stride16.safetensors"
CHANNELS, STRIDE = 1024, 16  # of the third stage
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class _ThirdStage(nn.Module):
    """The coarsest map of the network, as a pyramid of one level."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b 1024 _ _"]]:
        return [self.network(x)[-1]]


def load_judge(path: str | Path, scale: float = 1.0) -> PooledFeatures:
    """Images in [-1, 1] -> float32 vectors (b, 1024), on the CPU.

    path: the folder that holds code and weights, or the weights' file, with the code beside it. scale: images
    are enlarged by it first. Raises ValueError for files that are missing, unreadable or of another network.
    """
    weights = Path(path) / WEIGHTS if Path(path).is_dir() else Path(path)
    code = weights.with_name(CODE)
    for file in (weights, code):
        if not file.is_file():
            fix = f"give the folder that holds {CODE} and {WEIGHTS}"
            raise ValueError(f"--features {NAME}={path}: there is no {file}; {fix}")
    network = _network(code)
    config = BackboneConfig(NAME, str(weights), scale)
    pretrained.load_file(network, config, known=())
    pyramid = Pyramid(_ThirdStage(network), (CHANNELS,), (STRIDE,), (STRIDE,), MEAN, STD)
    return PooledFeatures(Backbone(pyramid, scale, f"ResNet-50 v2, stage 3 ({weights.name})"), NAME)


def _network(code: Path) -> nn.Module:
    spec = importlib.util.spec_from_file_location("_dpsims_judge", code)
    assert spec is not None and spec.loader is not None  # it ends in .py
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module.R50v2()
    except Exception as error:  # whatever somebody else's code raises
        raise ValueError(
            f"{code}: does not run ({type(error).__name__}: {error}); give the file that defines R50v2"
        ) from error
