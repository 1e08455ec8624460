"""What is given: model, cluster, workload, strategy, framework; units and errors.

Frozen values that check themselves, and nothing is priced here.  Imports no other room.  A new
kind of input gets a file of its own; a new field of one goes where its kin are, with its unit.
"""
