"""Evaluation: whatever answers (`retrievers`), how it is asked and measured (`run`, `scoring`), and what is shown (`report`)."""
