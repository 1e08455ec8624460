"""How to lay out a large model on a cluster: search, estimate, emit."""
