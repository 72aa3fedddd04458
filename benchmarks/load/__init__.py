"""What a server does under load; see `python -m benchmarks.load --help`."""
