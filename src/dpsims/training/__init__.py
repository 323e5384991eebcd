"""Training: `train(recipe, out)`."""

from dpsims.training.log import TrainingStopped
from dpsims.training.loop import train

__all__ = ["TrainingStopped", "train"]
