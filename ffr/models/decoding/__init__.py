"""How answers are written token by token: greedy, sampled, many behind one dialogue."""
