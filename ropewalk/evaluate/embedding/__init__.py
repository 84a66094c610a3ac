"""Evaluation of embedding models: LongEmbed's synthetic tasks, and the bridge to MTEB."""
