"""A server of Postgres with pgvector as the engine of a store: `--index postgresql://HOST/DB`."""
