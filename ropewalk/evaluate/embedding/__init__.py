"""Evaluation of embedding models on LongEmbed's synthetic tasks."""
