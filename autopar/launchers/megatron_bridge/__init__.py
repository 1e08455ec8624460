"""Megatron-Bridge: a recipe's name and overrides of its fields."""
