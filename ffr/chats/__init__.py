"""Chats as apps export them, read into one form: see `ffr/chats/reading.py`."""
