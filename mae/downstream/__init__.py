"""The second stage: probes, fine-tuning and segmentation on a pretrained encoder."""
