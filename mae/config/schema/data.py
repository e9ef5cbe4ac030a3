"""The group ``data``: where images come from, and how they become batches."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mae.config.schema.fields import Chosen, Group, key

Side = Annotated[int, Field(ge=1)]
ImageSize = Side | Annotated[list[Side], Field(min_length=2, max_length=2)]
"""A side, or [height, width], in pixels."""
IMAGES, CHECKPOINT = "a look at the images", "the checkpoint, or a look at the images"
MEASURED = "the checkpoint, or a measurement of up to 1,024 training images"


class Data(Group):
    """What every source has."""

    image_size: Chosen[ImageSize] = key("side or [height, width] in pixels that the model sees", chosen_by=CHECKPOINT)
    channels: Chosen[int] = key(
        "that the model sees; grey images stand in for colour ones, and colour for grey",
        chosen_by=CHECKPOINT,
        least=1,
    )
    bits: Chosen[Literal[8, 16]] = key(
        "8, or 16 for images that hold more (16 bits, floats), which go to the device as float32", chosen_by=IMAGES
    )
    min_scale: Chosen[float] = key(
        "smallest share of the image that a training crop holds; the paper pretrains with 0.2, and fine-tunes with 0.08",
        chosen_by=IMAGES,
        above=0,
        most=1,
    )
    flip: Chosen[bool] = key(
        "mirror half of the training images",
        chosen_by="a test whether images can be told from their mirror images, and classes change",
    )
    mean: Chosen[list[float]] = key("per channel, of pixels in [0, 1]", chosen_by=MEASURED)
    std: Chosen[list[Annotated[float, Field(gt=0)]]] = key("per channel, as mean", chosen_by=MEASURED)
    repeats: int = key(
        "crops of a training image, decoded once; an epoch has that many times the steps",
        least=1,
        default=1,
    )
    max_unreadable: float = key(
        "share of damaged images that stops the run; fewer are left out, and listed in run_dir",
        least=0,
        most=1,
        default=0.01,
    )
    decode: Literal["cpu", "device"] = key(
        "device: training JPEGs are decoded and cut on the GPU (nvJPEG), where the cores cannot keep up", default="cpu"
    )
    num_workers: Chosen[int] = key(
        "processes that decode; 0 decodes in the training process", chosen_by="the images and the cores", least=0
    )


class Indexed(Data):
    """A folder whose list of images other runs may share."""

    root: str | None = key("the folder")
    index: str | None = key(
        "folder that keeps the list of images, so that other runs need not scan; null keeps none",
        default=None,
    )


class Digits(Data):
    """The handwritten digits that scikit-learn ships."""

    source: Literal["digits"] = key("where images come from: the option of data=")


class Folder(Indexed):
    """Images without labels."""

    source: Literal["folder"] = key("where images come from: the option of data=")
    root: str | None = key("a folder, searched recursively; a text file that lists images; or a pattern")


class ImageFolder(Indexed):
    """train/<class>/ and, where they exist, val/<class>/ and test/<class>/."""

    source: Literal["image_folder"] = key("where images come from: the option of data=")


class Torchvision(Data):
    """One of torchvision's data sets."""

    source: Literal["torchvision"] = key("where images come from: the option of data=")
    name: str | None = key("of the data set, such as svhn")
    root: str | None = key("folder that holds it, or will")
    download: bool = key("fetch what is missing", default=False)


class Arrays(Data):
    """Arrays of any number of channels: .npy, .npz and TIFF."""

    source: Literal["arrays"] = key("where images come from: the option of data=")
    root: str | None = key(
        "a file of images, a folder of train.npy and the like, or a folder of files of one image each"
    )
    layout: Literal["NHW", "NHWC", "NCHW"] | None = key("order of the axes; null tells it from the shape", default=None)
    pages: Literal["images", "channels"] | None = key(
        "what pages of a TIFF are; null tells it from the names of its axes", default=None
    )


class Streamed(Data):
    """Files of many images each, which may come as a stream."""

    root: str | None = key("where the images are")
    stream: bool = key(
        "read files as they come, without index or labels; a URL or a pattern always is",
        default=False,
    )
    images: int | None = key(
        "of a stream, in all its files; null asks the hub, or manifest.json beside them", least=1, default=None
    )
    buffer: int = key("images of a device among which a stream draws the next one", least=1, default=1000)
    lanes: int | None = key(
        "files that a device reads side by side, a multiple of data.num_workers; null: up to 16", least=1, default=None
    )
    val_root: str | None = key(
        "data or shards for validation; null takes the data's own, or holds some out", default=None
    )


class WebDataset(Streamed):
    """Tar shards in the WebDataset convention, in a folder or at a URL."""

    source: Literal["webdataset"] = key("where images come from: the option of data=")


class HuggingFace(Streamed):
    """A data set of the Hugging Face hub, or local files in its formats."""

    source: Literal["huggingface"] = key("where images come from: the option of data=")
    config: str | None = key("of a data set that has several; null where it has one", default=None)
    image_column: str | None = key("null takes the only one that holds images", default=None)
    label_column: str | None = key(
        "null takes the one of class names, or of numbers that are called label or labels", default=None
    )


class SegmentationFolder(Indexed):
    """Images, each with a mask of class ids."""

    source: Literal["segmentation_folder"] = key("where images come from: the option of data=")
    images_at: str | None = key(
        'below root, such as "rgb/{split}"; without {split} all are for training; null looks',
        default=None,
    )
    masks_at: str | None = key("where the masks are below root; null looks", default=None)
    classes: Chosen[int | list[str]] = key(
        "their number, or a list of names by id",
        chosen_by="the training masks looked at: one more than their greatest id",
    )
    ignore: int | list[int] = key("id, or list of ids, of pixels that carry no label", default=255)


AnyData = Annotated[
    Digits | Folder | ImageFolder | Torchvision | Arrays | WebDataset | HuggingFace | SegmentationFolder,
    Field(discriminator="source"),
]
