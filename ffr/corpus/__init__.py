"""Many chats: kept, found in, and asked. See `ffr/corpus/archive.py`."""
