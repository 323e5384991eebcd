"""What the API answers, besides pictures."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="one sentence: what is wrong, and the mend")


class ClassInfo(BaseModel):
    """One class of a model's label maps."""

    index: int = Field(description="0, 1 ...: the order of the classes")
    id: int | None = Field(description="its value in grey PNG label maps, 0..65535; null: it cannot be sent")
    name: str
    color: tuple[int, int, int] = Field(description="its RGB colour in coloured label maps")


class ModelInfo(BaseModel):
    """A model and what it understands."""

    name: str = Field(description="what requests call it")
    digest: str = Field(description="digest of its weights")
    classes: list[ClassInfo]
    unlabelled: ClassInfo = Field(description="stands for pixels without a class")
    height: int = Field(description="pixels; the size of picture that it was trained at")
    width: int
    region_noise: bool = Field(description="whether it takes `regions`")
    examples: list[str] = Field(description="names of label maps to start from")


class MapContent(BaseModel):
    """A label map as class indices."""

    name: str
    height: int
    width: int
    indices: str = Field(
        description="base64 of height*width numbers row by row, one byte each (two, little-endian, for "
        "models of more than 255 classes): class indices, the number of classes standing for unlabelled"
    )


class Health(BaseModel):
    """Whether the server lives, or takes requests."""

    status: str


class Settings(BaseModel):
    """What made a ZIP's pictures; goes in it as settings.json."""

    model: str
    model_digest: str = Field(description="digest of the model's weights")
    seeds: list[int] = Field(description="one for each picture")
    blend_seed: int | None = None
    blend: float = 0.0
    region_seeds: list[int] = []
    size: str
