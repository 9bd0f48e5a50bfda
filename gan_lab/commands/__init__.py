"""One module for each command of the command line, with `run(config)`."""
