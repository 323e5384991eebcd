"""`dpsims demo`: on a miniature planet, for seconds of training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from dpsims import demo
from dpsims.checkpoint import Model
from dpsims.config import GeneratorConfig, Recipe
from dpsims.evaluation.segmentation import Segmenter
from dpsims.labels import LabelSpace
from dpsims.models.generator import Generator
from dpsims.synthesis import Synthesizer
