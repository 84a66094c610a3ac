"""Evaluate a served model by its OpenAI-compatible API."""
