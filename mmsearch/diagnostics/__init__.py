"""What a trained model says of its modalities."""
