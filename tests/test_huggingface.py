"""Segmentation models of Hugging Face, tiny and untrained: their classes onto ours, their answers as
transformers gives them.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dpsims.evaluation.huggingface import HuggingFaceSegmenter, map_classes
from tests.command_line import SPACE, check_refused
from tests.conftest import Run

THEIRS = ("Sky", "street", "tree ", "cow")


def save_segformer(folder: Path, architecture: str = "SegformerForSemanticSegmentation") -> Path:
    import transformers

    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 8], patch_sizes=[7, 3],
        strides=[4, 2], num_attention_heads=[1, 1], mlp_ratios=[1, 1], decoder_hidden_size=8,
        id2label=dict(enumerate(THEIRS)), label2id={name: i for i, name in enumerate(THEIRS)},
    )  # fmt: skip
    model = getattr(transformers, architecture)(config)
    with torch.no_grad():
        for parameter in model.parameters():  # so that the answer is not one class everywhere
            parameter.add_(torch.randn_like(parameter) * 0.5)
    model.save_pretrained(folder)
    transformers.SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def save_mask2former(folder: Path) -> Path:
    import transformers

    backbone = transformers.SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2,
    )  # fmt: skip
    backbone.out_features = ["stage1", "stage2", "stage3", "stage4"]
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, num_queries=12,
        encoder_feedforward_dim=16, dim_feedforward=16, encoder_layers=1, decoder_layers=2,
        num_attention_heads=2, id2label=dict(enumerate(THEIRS)),
        label2id={name: i for i, name in enumerate(THEIRS)},
    )  # fmt: skip
    model = transformers.Mask2FormerForUniversalSegmentation(config)
    torch.manual_seed(2)  # one of those that answer several classes
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.3)
            if "norm" in name and name.endswith("weight"):
                parameter.fill_(1)
        model.model.transformer_module.queries_features.weight.normal_(0, 3)
        model.class_predictor.weight.normal_(0, 1)
    model.save_pretrained(folder)
    size = {"height": 64, "width": 64}
    transformers.Mask2FormerImageProcessor(size=size, size_divisor=32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def segformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_segformer(tmp_path_factory.mktemp("segformer"))


@pytest.fixture(scope="module")
def mask2former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_mask2former(tmp_path_factory.mktemp("mask2former"))


def all_mapped(tmp_path: Path) -> Path:
    """Four classes onto three."""
    file = tmp_path / "classes.yaml"
    file.write_text("street: road\ncow: Tree\n")
    return file


def picture(seed: int = 0, height: int = 32, width: int = 48) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    return noise.repeat(8, axis=0).repeat(8, axis=1)


def tensor(*arrays: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 127.5 - 1


def own_scores(folder: Path, array: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """What transformers' own processor and model answer, of four classes, at `size` or the array's."""
    import transformers

    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    model = getattr(transformers, architecture).from_pretrained(folder).eval()
    with torch.no_grad():
        outputs = model(**processor(images=Image.fromarray(array), return_tensors="pt"))
    (found,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[size or array.shape[:2]])
    return found.numpy()


# --- classes


def test_classes_go_by_name_in_any_case():
    assert map_classes(THEIRS, SPACE.names) == [0, None, 2, None]


@pytest.mark.parametrize("name", ["classes.yaml", "classes.json"])
def test_a_file_goes_before_the_names(tmp_path: Path, name: str):
    file = tmp_path / name
    file.write_text(json.dumps({"street": "road", "SKY": None, "cow": "tree"}))
    assert map_classes(THEIRS, SPACE.names, file) == [None, 1, 2, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"stret": "road"}', r"'stret' is no class of hf:x \(did you mean 'street'\?\)"),
        ('{"street": "raod"}', r"'raod', no class that is counted \(did you mean 'road'\?\)"),
        ('{"street": 1}', r"'street': 1 maps no name"),
        ("[]", r"give \{their name"),
        ("{", r"neither YAML nor JSON"),
        ('{"Sky": null, "tree": null}', r"hf:x: none of its 4 classes \(Sky, .*\(sky, road, tree\).*FILE"),
    ],
)
def test_mappings_that_are_none_are_refused(tmp_path: Path, text: str, said: str):
    file = tmp_path / "classes.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=said):
        map_classes(THEIRS, SPACE.names, file, "hf:x")
    with pytest.raises(ValueError, match=r"none\.yaml: cannot be read"):
        map_classes(THEIRS, SPACE.names, tmp_path / "none.yaml")


def test_what_the_mapping_leaves_open_is_said(segformer: Path, tmp_path: Path):
    segmenter = HuggingFaceSegmenter(str(segformer), SPACE)
    assert segmenter.missing == ["road"] and segmenter.left_out == ["street", "cow"]
    ours, theirs = segmenter.notices
    assert "nothing of 1 of 3 classes" in ours and ours.endswith(": road")
    assert "2 of its 4 classes" in theirs and theirs.endswith(": street, cow")
    assert HuggingFaceSegmenter(str(segformer), SPACE, all_mapped(tmp_path)).notices == []


# --- answers


@pytest.mark.parametrize("kind", ["segformer", "mask2former"])
def test_answers_are_those_of_transformers(kind: str, tmp_path: Path, request: pytest.FixtureRequest):
    folder = request.getfixturevalue(kind)
    arrays = [picture(seed) for seed in range(5)]  # more than the model takes at once
    segmenter = HuggingFaceSegmenter(str(folder), SPACE, all_mapped(tmp_path))
    found = segmenter.predict(tensor(*arrays))
    assert found.shape == (5, 32, 48) and found.dtype == torch.int64 and segmenter.num_classes == 3
    wanted = np.stack([np.array([0, 1, 2, 2])[own_scores(folder, array)] for array in arrays])
    assert len(np.unique(wanted)) > 1
    # pictures in a batch of their own are added up in another order: a tie may fall otherwise
    assert (found.numpy() == wanted).mean() > 0.999
    assert torch.equal(found, segmenter.predict(tensor(*arrays)))


@pytest.mark.parametrize("kind", ["segformer", "mask2former"])
def test_answers_at_another_size_are_of_the_scores(kind: str, tmp_path: Path, request: pytest.FixtureRequest):
    folder, array = request.getfixturevalue(kind), picture()
    segmenter = HuggingFaceSegmenter(str(folder), SPACE, all_mapped(tmp_path))
    (found,) = segmenter.predict(tensor(array), (45, 70)).numpy()
    wanted = np.array([0, 1, 2, 2])[own_scores(folder, array, (45, 70))]
    assert len(np.unique(wanted)) > 1 and (found == wanted).mean() > 0.999
    assert segmenter.weights == segmenter.key["weights"]


@pytest.mark.parametrize("kind", ["segformer", "mask2former"])
def test_classes_without_one_of_ours_are_never_answered(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
):
    """They are left out, and the others keep their scores: where one of those won, it still does."""
    folder = request.getfixturevalue(kind)
    own = own_scores(folder, picture())
    out = int(np.bincount(own.flatten()).argmax())
    ours = iter(SPACE.names)
    file = tmp_path / "classes.json"
    file.write_text(json.dumps({name: None if i == out else next(ours) for i, name in enumerate(THEIRS)}))
    segmenter = HuggingFaceSegmenter(str(folder), SPACE, file)
    assert segmenter.left_out == [THEIRS[out]]
    (found,) = segmenter.predict(tensor(picture())).numpy()
    kept = own != out
    assert 0 < kept.sum() < kept.size
    assert (found[kept] == (own - (own > out))[kept]).all()


def test_the_key_knows_weights_preprocessing_and_mapping(segformer: Path, tmp_path: Path):
    import transformers

    key = HuggingFaceSegmenter(str(segformer), SPACE).key
    assert key["model"] == segformer.name and key["transformers"] == transformers.__version__
    assert key["mapping"] == ["Sky -> sky", "tree  -> tree"] and json.loads(json.dumps(key)) == key
    moved = tmp_path / "moved" / segformer.name
    shutil.copytree(segformer, moved)
    assert HuggingFaceSegmenter(str(moved), SPACE).key == key
    small = HuggingFaceSegmenter(str(segformer), SPACE, size=32)
    assert small.key == {**key, "size": 32}
    assert small.predict(tensor(picture())).shape == (1, 32, 48)
    transformers.SegformerImageProcessor(size={"height": 32, "width": 32}).save_pretrained(moved)
    assert HuggingFaceSegmenter(str(moved), SPACE).key["processor"] != key["processor"]
    model = transformers.SegformerForSemanticSegmentation.from_pretrained(moved)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    model.save_pretrained(moved)
    assert HuggingFaceSegmenter(str(moved), SPACE).key["weights"] != key["weights"]


# --- refusals


def test_models_that_cannot_judge_are_refused(
    tmp_path: Path, segformer: Path, monkeypatch: pytest.MonkeyPatch
):
    from huggingface_hub import constants

    def refusal(name: str | Path) -> str:
        with pytest.raises(ValueError) as caught:
            HuggingFaceSegmenter(str(name), SPACE)
        assert "\n" not in str(caught.value) and str(caught.value).startswith(f"hf:{name}: ")
        return str(caught.value)

    assert "no such folder" in refusal(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "cannot be loaded" in refusal(tmp_path / "empty")
    classifier = save_segformer(tmp_path / "classifier", "SegformerForImageClassification")
    assert "is a SegformerForImageClassification" in refusal(classifier)
    config = json.loads((classifier / "config.json").read_text())
    config["architectures"] = ["SegformerForSemanticSegmentation"]
    (classifier / "config.json").write_text(json.dumps(config))
    assert "weights are missing (decode_head." in refusal(classifier)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "couldn't connect" in refusal("nobody/no-such-segmenter")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install 'dpsims\[evaluation\]'"):
        HuggingFaceSegmenter(str(segformer), SPACE)


def test_evaluate_with_a_model_of_hugging_face(tmp_path: Path, photos: Path, segformer: Path, dpsims: Run):
    report = tmp_path / "report.json"
    args = ["evaluate", photos / "images", "--data", photos, "--features", "scenes_tiny", "--json", report]
    code, table, err = dpsims(*args, "--segmenter", f"hf:{segformer}")
    assert code == 0, err
    assert "tells nothing of 1 of 3 classes" in err and "mIoU" in table and "training a segmenter" not in err
    values = json.loads(report.read_text())
    assert values["segmenter"]["missing"] == ["road"] and values["iou"]["road"] == 0
    assert values["miou"] == values["real"]["miou"]  # of the very pictures
    mapping = all_mapped(tmp_path)
    code, _, err = dpsims(*args, "--segmenter", f"hf:{segformer}", "--segmenter-classes", mapping)
    assert code == 0 and "tells nothing" not in err, err
    check_refused(dpsims(*args, "--segmenter-classes", mapping), "--segmenter-classes", "hf:NAME")
    code, _, err = dpsims(*args, "--segmenter", f"hf:{tmp_path}/none")
    assert code == 1 and err.splitlines()[-1].startswith(f"error: hf:{tmp_path}/none: there is no such")
