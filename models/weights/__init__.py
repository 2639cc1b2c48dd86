"""The weights this project knows by name: what each consists of, pulling it, checking it."""
