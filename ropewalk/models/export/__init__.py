"""What other engines can run: a frequency table written as transformers' configuration, or into a GGUF file."""
