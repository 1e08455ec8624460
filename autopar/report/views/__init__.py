"""One module per kind of answer: what a person reads of it, and its document for programs.

Imports ``autopar.report`` and the answers; a new answer gets its view here.
"""
