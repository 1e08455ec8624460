"""What one training step costs: pure functions on arrays."""
