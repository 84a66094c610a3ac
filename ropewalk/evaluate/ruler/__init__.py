"""RULER (arXiv 2404.06654): its thirteen tasks for any tokenizer, and synthetic question answering beside them."""
