"""Masked autoencoders: pretrain a Vision Transformer on your own images, then probe or fine-tune it."""

import os

# Before torch loads OpenMP: idle threads sleep instead of spinning. Spinning threads starve the processes that decode
# images, and whatever else runs: with one other busy process on two cores a training step took twenty times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from mae.checkpoints.format import save
from mae.checkpoints.load import load_autoencoder, load_encoder
from mae.masking.plan import MaskPlan
from mae.models.autoencoder import MaskedAutoencoder, create_autoencoder

__all__ = ["MaskPlan", "MaskedAutoencoder", "create_autoencoder", "load_autoencoder", "load_encoder", "save"]
