"""Set-up helpers, and what renders the module folders."""
