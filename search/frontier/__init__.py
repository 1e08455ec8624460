"""What is beaten and what is not: masks, a frontier that grows, and the area that it dominates.

Imports ``rules`` and the result.  Another measure of a frontier's quality belongs here.
"""
