"""Tasks, texts, runs and statistics: what a method gained and what it cost."""
