"""What one training step costs: pure functions on arrays; rooms as their folders say."""
