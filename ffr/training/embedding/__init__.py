"""Training a sentence encoder on fragments, by the trainer of sentence-transformers."""
