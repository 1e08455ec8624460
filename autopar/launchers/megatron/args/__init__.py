"""What Megatron's launchers call our knobs, shared by Megatron-LM and Megatron-Bridge."""
