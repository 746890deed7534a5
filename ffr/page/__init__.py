"""The local page: search chats, read one, see a fragment. See `ffr/page/app.py`."""
