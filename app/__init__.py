"""The service: knows HTTP and AzureML's format; imports `models`, never the reverse."""
