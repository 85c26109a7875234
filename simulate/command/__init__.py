"""The command line: options, what they ask for, what is shown meanwhile."""
