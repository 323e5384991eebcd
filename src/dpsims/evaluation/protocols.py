"""Protocols by name: which pictures are compared with which, at what size, by whom.

Figures of this field differ by protocol as much as by model. A protocol fixes what a paper's figures depend
on, as far as it is known; every report records it. What is only remembered of a paper says so.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from dpsims.data.batches import Resize

Maps = Literal["picture", "native"] | tuple[int, int]
"""The size at which a segmenter's answer is compared with the label map: that of the compared pictures, the
map's own, or (height, width)."""


@dataclass(frozen=True)
class Protocol:
    """How figures are taken. The reference set is all of the split; each of its maps gives one picture."""

    name: str | None
    about: str
    size: tuple[int, int] | None = None
    """(height, width) of generated and real pictures; None: as the model makes them"""
    resize: Resize = "bilinear"
    """filter that brings pictures to it, antialiased"""
    maps: Maps = "picture"
    features: tuple[str, ...] = ()
    """networks that it asks for"""
    segmenter: str | None = None
    by_mask2former: bool = False
    lpips: str | None = None
    diversity_samples: int = 2
    diversity_maps: int | None = 64
    """of how many evenly spaced maps; None: of all"""
    seed: int = 0

    def record(self, size: tuple[int, int], reference: str, seed: int) -> dict[str, Any]:
        """For a report. reference: the split whose pictures are compared with."""
        values = asdict(self) | {"size": list(size), "reference": reference, "samples": 1, "seed": seed}
        values["maps"] = self.maps if isinstance(self.maps, str) else list(self.maps)
        for named_elsewhere in ("features", "segmenter", "by_mask2former", "lpips"):
            del values[named_elsewhere]
        return values


def protocol(name: str | None, source: str) -> Protocol:
    """A protocol by name (None: ours) for a kind of data set. ValueError for a name that there is not."""
    if name is None:
        return DEFAULT
    if name not in PROTOCOLS:
        raise ValueError(f"--protocol {name}: unknown; use one of {', '.join(PROTOCOLS)}")
    chosen = PROTOCOLS[name]
    if source.startswith("cityscapes") and chosen.size is not None:
        chosen = replace(chosen, size=(chosen.size[0], 2 * chosen.size[1]))
    return replace(chosen, segmenter=MASK2FORMER.get(source)) if chosen.by_mask2former else chosen


DEFAULT = Protocol(None, "pictures as the model makes them, maps at their size")

OASIS = Protocol(
    name="oasis",
    about="as OASIS reports: 256 pixels (Cityscapes 256x512), FID against the split's real pictures, maps at "
    "the pictures' size. Its segmenters (DRN-D-105, UperNet101, DeepLabV2) are not part of it: mIoU is by "
    "the one that the report names",
    size=(256, 256),
    # The released program takes the pictures of its data loader, remembered as bicubic;
    # https://github.com/essunny310/FreestyleNet/issues/3 says the same of those who compare with it.
    resize="bicubic",
    maps="picture",  # by the nearest pixel: https://github.com/boschresearch/OASIS/issues/5
    features=("inception",),
    lpips="alex",  # and 20 samples of each map: both remembered from the paper
    diversity_samples=20,
    diversity_maps=None,
)
DPSIMS = replace(
    OASIS,
    name="dpsims",
    about="as oasis, with mIoU by Mask2Former (the paper's mIoU_MF) where that is published for the data "
    "set, and a second feature space beside Inception",
    features=("inception", "vit_small_patch14_dinov2"),
    by_mask2former=True,
)
PROTOCOLS = {
    "oasis": OASIS,
    "dpsims": DPSIMS,
    "dpsims-512": replace(
        DPSIMS, name="dpsims-512", about="as dpsims, at 512 pixels (Cityscapes 512x1024)", size=(512, 512)
    ),
}

# Mask2Former's published semantic models on the Hub. COCO-Stuff's 171 classes have none there.
MASK2FORMER = {
    "ade20k": "hf:facebook/mask2former-swin-large-ade-semantic",
    "cityscapes": "hf:facebook/mask2former-swin-large-cityscapes-semantic",
    "cityscapes_trainids": "hf:facebook/mask2former-swin-large-cityscapes-semantic",
}
