"""What each tool does, from its command line on: one file a command."""
