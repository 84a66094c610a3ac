"""Models: where they come from, what their rotary is, and how a method is attached to them."""
