"""Masked autoencoders: pretrain a Vision Transformer on your own images, then probe or fine-tune it."""

import os

# Before torch loads OpenMP: an idle thread spins for a moment and then sleeps. GNU OpenMP's default, to spin for long, starves the
# processes that decode images and whatever else runs; no spinning at all gives up the second core for small models.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

from mae.checkpoints.format import save
from mae.checkpoints.load import load_autoencoder, load_encoder
from mae.masking.plan import MaskPlan
from mae.models.autoencoder import MaskedAutoencoder, create_autoencoder

__all__ = ["MaskPlan", "MaskedAutoencoder", "create_autoencoder", "load_autoencoder", "load_encoder", "save"]
