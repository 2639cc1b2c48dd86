"""Which models answer now, and how others take their place while the service runs."""
