"""What a rank holds and does, counted before anything is priced.

Layers of a pipeline rank, widths and parameters after sharding, FLOPs and messages of a step,
bytes that a layer keeps.  Imports ``specs`` alone.  A new kind of layer or of sharding is counted
here first; seconds and peaks follow in ``equations``.
"""
