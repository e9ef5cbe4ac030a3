"""Tensors to tensors: patches, positions, encoder, decoder, autoencoder, heads, classifier."""
