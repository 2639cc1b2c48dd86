"""What the service does under load for a long time, when parts of it fail, and when it is told to end."""
