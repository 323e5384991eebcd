"""Realism, layout and diversity of generated pictures, measured against real ones. Knows no model class."""

from dpsims.evaluation.diversity import PairwiseDiversity, RealDiversity
from dpsims.evaluation.features import PooledFeatures
from dpsims.evaluation.frechet import Moments, frechet_distance
from dpsims.evaluation.report import contact_sheet, grid, rows_of, text_table, to_uint8
from dpsims.evaluation.run import RealReference, evaluate, measure_real
from dpsims.evaluation.segmentation import (
    ConfusionMatrix,
    Segmenter,
    cached_segmenter,
    segmenter_key,
    train_segmenter,
)
from dpsims.evaluation.validate import summary, validate

__all__ = [
    "ConfusionMatrix",
    "Moments",
    "PairwiseDiversity",
    "PooledFeatures",
    "RealDiversity",
    "RealReference",
    "Segmenter",
    "cached_segmenter",
    "contact_sheet",
    "evaluate",
    "frechet_distance",
    "grid",
    "measure_real",
    "rows_of",
    "segmenter_key",
    "summary",
    "text_table",
    "to_uint8",
    "train_segmenter",
    "validate",
]
