"""What is predicted, and how the prediction is scored."""
