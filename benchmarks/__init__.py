"""What the project measures of itself: accuracy, speed, search quality."""
