"""What a training looks at while it runs, and the three figures that sum up a report."""

from __future__ import annotations

import math
from typing import Any

from dpsims.evaluation.diversity import PairwiseDiversity
from dpsims.evaluation.features import PooledFeatures
from dpsims.evaluation.frechet import Moments, frechet_distance
from dpsims.evaluation.run import Batches, Generate, generate_checked


def validate(
    generate: Generate,
    val: Batches,
    network: PooledFeatures,
    reference: Moments | None = None,
    diversity_maps: int = 16,
) -> dict[str, float]:
    """A quick look during training: {"frechet": distance to the real pictures of `val`, "diversity": in
    pixels}.

    One pass, one network, no segmenter; two samples of the first `diversity_maps` maps. reference: moments of
    the real pictures of `val`, measured along where absent (they cost a pass of the network each time).
    Raises ValueError as `evaluate`.
    """
    real, fake, diversity = Moments(), Moments(), PairwiseDiversity([])
    for image, label in val(0):
        if reference is None:
            real.update(network(image))
        indices = range(fake.count, fake.count + len(label))
        sample = generate_checked(generate, label, indices, 0)
        again = label[: max(0, diversity_maps - fake.count)]
        if len(again):
            other = generate_checked(generate, again, indices[: len(again)], 1)
            diversity.update([sample[: len(again)], other])
        fake.update(network(sample))
    diverse = diversity.report()["diversity"]
    return {
        "frechet": frechet_distance(fake, reference or real),
        "diversity": math.nan if diverse is None else diverse,
    }


def summary(report: dict[str, Any], network: str | None = None) -> dict[str, float | None]:
    """The flat triple `frechet`, `miou`, `diversity` of a report of `evaluate` or of its "real" section.

    network: name of the network whose Frechet distance is shown; the report's first where not given.
    ValueError for one that the report does not have.
    """
    frechet = report["frechet"]
    if network is not None and network not in frechet:
        raise ValueError(f"network={network!r} was not measured; there are: {', '.join(frechet)}")
    value = frechet[network if network is not None else next(iter(frechet))]
    return {"frechet": value, "miou": report.get("miou"), "diversity": report.get("diversity")}
