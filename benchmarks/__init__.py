"""What the project measures of itself: accuracy, speed, search quality."""

import os

# sums in one order, whatever the machine: a fit rebuilds bit for bit
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
