"""Training a reader: a small network over a sentence encoder's vectors learns from true fragments."""
