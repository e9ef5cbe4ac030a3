"""JPEGs decoded in the main process, on a device: as those that workers decode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mae.data.datamodule import ImageData
from mae.data.loading.batches import Batch, BatchLoader
from mae.data.sources.file_index import scan
from mae.data.sources.files import FileSource
from mae.data.splits import Splits
from tests.data.drawing import smooth


@pytest.fixture
def photographs(tmp_path: Path) -> FileSource:
    """Give JPEGs in every orientation, a grey one, and a PNG, which the CPU decodes."""
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(smooth(40, 56, seed=orientation)).save(tmp_path / f"{orientation}.jpg", exif=exif, quality=95)
    Image.fromarray(smooth(30, 30, 1)[..., 0]).save(tmp_path / "grey.jpg")
    Image.fromarray(smooth(30, 44)).save(tmp_path / "picture.png")
    return FileSource(tmp_path, scan(tmp_path).names)


def batches(source: FileSource, decode: str, **changes: Any) -> Sequence[Batch]:
    options = {"effective_batch": 5, "micro_batch": 5, "channels": 3, "num_workers": 0, **changes}
    data = ImageData(
        Splits(source, source, None, ""),
        image_size=(16, 16),
        min_scale=0.3,
        flip=True,
        seed=0,
        decode=decode,
        **options,
    )
    loader = data.train_dataloader()
    assert isinstance(loader, BatchLoader)
    return list(loader)


@pytest.mark.parametrize(
    "changes", [{}, {"num_workers": 2}, {"channels": 1}, {"repeats": 5}, {"bits": 16}], ids=lambda value: str(value)
)
def test_crops_are_those_that_the_workers_make(
    photographs: FileSource, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # nvJPEG decodes whole images: windows are not moved to the grid of a reduced one.
    monkeypatch.setattr("mae.data.reading.transforms.REDUCTIONS", ())
    scale = 1 if changes.get("bits") == 16 else 255
    for ours, theirs in zip(
        batches(photographs, "device", **changes), batches(photographs, "cpu", **changes), strict=True
    ):
        assert ours.images.dtype == theirs.images.dtype
        assert torch.equal(ours.indices, theirs.indices)
        assert torch.equal(ours.labels, theirs.labels)
        difference = (ours.images.float() - theirs.images.float()).abs().flatten(1).mean(1) / scale
        assert difference.max() < 2 / 255


@pytest.fixture
def cut_short(tmp_path: Path) -> Callable[[Iterable[int]], FileSource]:
    """Give ten labelled JPEGs, of which some break off behind a sound header."""

    def make(numbers: Iterable[int]) -> FileSource:
        noise = np.random.default_rng(0)
        for number in range(10):
            Image.fromarray(noise.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(tmp_path / f"{number}.jpg")
        for number in numbers:
            content = (tmp_path / f"{number}.jpg").read_bytes()
            (tmp_path / f"{number}.jpg").write_bytes(content[: len(content) * 3 // 4])
        return FileSource(tmp_path, scan(tmp_path).names, np.arange(10), tuple("abcdefghij"))

    return make


def test_a_damaged_jpeg_is_named_and_another_image_stands_in(cut_short: Callable[..., FileSource]) -> None:
    with pytest.warns(UserWarning, match=r"4\.jpg cannot be read"):
        found = batches(cut_short([4]), "device")
    assert [len(batch.images) for batch in found] == [5, 5]
    named = [message for batch in found for message in batch.unreadable]
    assert len(named) == 1
    assert "4.jpg cannot be read" in named[0]
    for batch in found:
        for place in (batch.labels != batch.indices).nonzero().flatten().tolist():
            assert batch.indices[place] == 4
            # The image that stands in brings its own label.
            (twin,) = (batch.indices == batch.labels[place]).nonzero().flatten().tolist()
            assert torch.equal(batch.images[place], batch.images[twin])


def test_a_batch_without_one_image_that_can_be_read_says_so(cut_short: Callable[..., FileSource]) -> None:
    with pytest.raises(ValueError, match=r"no image of a batch can be read: .*jpg"):
        batches(cut_short(range(10)), "device")


def test_augmentation_on_the_cpu_is_refused(photographs: FileSource) -> None:
    with pytest.raises(ValueError, match=r"rand_augment=9 works on the CPU: data\.decode=cpu"):
        batches(photographs, "device", rand_augment=9)


@pytest.mark.gpu
def test_a_gpu_decodes_as_the_cpu_does(photographs: FileSource) -> None:
    from mae.data.loading.device_decoding import DeviceDecoder, EncodedDataset
    from mae.data.reading.transforms import EvalTransform

    dataset = EncodedDataset(photographs, EvalTransform((16, 16)), 3)
    items = [dataset[0, index] for index in range(len(dataset))]
    found = [
        DeviceDecoder(torch.device(name), dataset.transform, 3, 8)(items).images.cpu().float()
        for name in ("cpu", "cuda")
    ]
    assert (found[0] - found[1]).abs().flatten(1).mean(1).max() < 3
