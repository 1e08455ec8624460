"""Which strategies are worth pricing, and which of them are best."""
