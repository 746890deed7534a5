"""The reader: a small network that finds a query's fragment by how alike sentences are."""
