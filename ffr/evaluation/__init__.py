"""Evaluation: how a retriever is asked (`run`) and measured, compared and gated."""
