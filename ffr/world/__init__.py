"""The small world that samples are made of: topics, words in two languages, drawn pictures.

Imports nothing of ffr.
"""
