"""The command line: what ``repro COMMAND`` does, says, and exits with.

In: the words of a command line. Out: an exit code, and what a terminal is told."""
