"""Serving: the vLLM plug-in, the front of `ropewalk serve`, and what a model will need."""
