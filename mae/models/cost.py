"""What a model costs, counted without computing it: parameters and multiply-adds."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mae.masking.plan import MaskPlan
from mae.models.decoders import Decoder
from mae.models.masked_model import MaskedModel

M = TypeVar("M", bound=nn.Module)


def parameters(module: nn.Module, *, learning: bool = False) -> int:
    """Return how many parameters a module has; shared ones count once, buffers not at all.

    Args:
        module: Any.
        learning: Leave frozen ones out.
    """
    return count(parameter for parameter in module.parameters() if parameter.requires_grad or not learning)


def count(tensors: Iterable[Tensor]) -> int:
    """Return how many numbers tensors hold together."""
    return sum(tensor.numel() for tensor in tensors)


def multiply_adds(module: nn.Module, *inputs: Tensor | Sequence[Tensor]) -> int:
    """Return the multiply-adds of one forward pass in eval mode.

    Matrix products, convolutions and attention are counted, as papers do that report GFLOPs of this kind (a multiplication and
    the addition after it are one). Biases, norms, activations, softmax, pooling, interpolation and sums are not.

    Args:
        module: Left as it is: a copy without memory is run, so ViT-H can be counted anywhere.
        *inputs: What ``forward`` takes, tensors or lists of them; their shapes matter alone, so meta tensors do.
    """
    shapes = [part.to("meta") if isinstance(part, Tensor) else [one.to("meta") for one in part] for part in inputs]
    twin = meta_twin(module)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin(*shapes)
    return int(counter.get_total_flops()) // 2


def training_multiply_adds(model: MaskedModel, plan: MaskPlan) -> int:
    """Return the multiply-adds of a training step on one image: a forward pass, and a backward pass that costs two.

    Args:
        model: Left as it is: a copy is run on the CPU.
        plan: Of one image.
    """
    twin, channels = copy.deepcopy(model), model.encoder.in_channels
    twin.encoder.set_pixel_statistics((0.5,) * channels, (0.5,) * channels)  # not measured yet, and without a cost
    for part in twin.modules():
        part.training = isinstance(part, Decoder)  # which may predict less at a step than in eval mode
    images = torch.zeros(1, channels, *model.encoder.image_size)
    # On a CPU the counter passes over fused attention; autocast, which a target turns off, knows no meta device.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        twin(images, plan)
    return 3 * int(counter.get_total_flops()) // 2


def meta_twin(module: M) -> M:
    """Return a copy on the meta device, in eval mode: it turns shapes into shapes and takes no memory."""
    empty: dict[int, Tensor] = {
        id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in module.parameters()
    }
    empty |= {id(buffer): buffer.to("meta") for buffer in module.buffers()}
    # The memo says that every tensor is copied already, so deepcopy copies the structure around them.
    return copy.deepcopy(module, empty).eval()
