"""Fine-grained fragment retrieval: find the part of a long multi-modal dialogue that a query means."""

__version__ = "0.1.0"
