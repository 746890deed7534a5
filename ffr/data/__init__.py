"""Reading, checking, writing, building and fetching dialogues."""
