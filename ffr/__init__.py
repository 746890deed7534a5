"""Fine-grained fragment retrieval.

Find the part of a long multi-modal dialogue that a query means.
"""

__version__ = "0.1.0"
