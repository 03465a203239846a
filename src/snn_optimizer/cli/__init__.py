"""The command line: snnopt."""
