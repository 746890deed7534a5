"""The command line: one file a command group; heavy imports stay inside command bodies."""
