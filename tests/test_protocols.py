"""Protocols by name, and what they fix."""

from __future__ import annotations

import json

import pytest

from dpsims.evaluation.protocols import PROTOCOLS, protocol


@pytest.mark.parametrize(
    ("name", "source", "size"),
    [
        ("oasis", "ade20k", (256, 256)),
        ("oasis", "cityscapes_trainids", (256, 512)),
        ("dpsims", "cocostuff", (256, 256)),
        ("dpsims-512", "folder", (512, 512)),
        ("dpsims-512", "cityscapes", (512, 1024)),
    ],
)
def test_sizes_of_the_papers(name: str, source: str, size: tuple[int, int]):
    how = protocol(name, source)
    assert how.size == size and how.resize == "bicubic" and how.maps == "picture"
    assert how.features[0] == "inception" and how.diversity_samples == 20


def test_mask2former_where_there_is_one():
    assert "mask2former" in str(protocol("dpsims", "ade20k").segmenter)
    assert protocol("dpsims", "cocostuff").segmenter is None
    assert protocol("oasis", "ade20k").segmenter is None


def test_ours_is_the_default_and_unknown_ones_are_named():
    ours = protocol(None, "ade20k")
    assert ours.name is None and ours.size is None and ours.resize == "bilinear"
    with pytest.raises(ValueError, match="oasis, dpsims, dpsims-512"):
        protocol("spade", "ade20k")


def test_records_tell_protocols_apart():
    records = [json.dumps(how.record((4, 4), "test", 0), sort_keys=True) for how in PROTOCOLS.values()]
    assert len(set(records)) == len(records)
    sizes = {name: how.record(how.size or (0, 0), "test", 0)["size"] for name, how in PROTOCOLS.items()}
    assert sizes == {"oasis": [256, 256], "dpsims": [256, 256], "dpsims-512": [512, 512]}
    record = json.loads(records[0])
    assert record["reference"] == "test" and record["samples"] == 1 and record["size"] == [4, 4]
