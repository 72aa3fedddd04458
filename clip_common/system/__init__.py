"""What the package needs of the machine: its cache, its CPU and threads, optional packages."""
