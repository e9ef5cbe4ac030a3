"""Masked autoencoders: pretrain a Vision Transformer on your own images, then probe or fine-tune it."""

from mae.checkpoints.format import save
from mae.checkpoints.load import load_autoencoder, load_encoder
from mae.masking.plan import MaskPlan
from mae.models.autoencoder import MaskedAutoencoder, create_autoencoder

__all__ = ["MaskPlan", "MaskedAutoencoder", "create_autoencoder", "load_autoencoder", "load_encoder", "save"]
