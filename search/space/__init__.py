"""What can be asked for: the axes, their values as text, and one spelling for equal strategies.

Imports ``rules``.  A new knob of a strategy becomes an axis here.
"""
