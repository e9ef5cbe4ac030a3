"""What follows pretraining: probes and fine-tuning, frozen features, and the evaluation of a finished classifier."""
