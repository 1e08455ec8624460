"""Megatron-LM: a bash script of flags for ``pretrain_gpt.py``, whose meanings are in ``args``."""
