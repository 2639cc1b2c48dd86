"""Label Studio's ML backend: pre-labels of tasks, and masks for its smart tools."""
