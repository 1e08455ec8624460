"""One step of one strategy as events: who waits for whom, bubbles, memory over time, a trace.

Imports ``rules`` and the result.  A new schedule is an order of operations in ``schedules``.
"""
