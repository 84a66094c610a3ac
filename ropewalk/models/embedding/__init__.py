"""Embedding models: encoders that add a row of a position table to every token, and sentence-transformers."""
