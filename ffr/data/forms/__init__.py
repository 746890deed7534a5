"""The forms a file of dialogues can have: ms-swift, raw, predictions."""
