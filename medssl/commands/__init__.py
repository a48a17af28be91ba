"""The subcommands, each a function; what they need is imported when they run, so that --help is quick."""
