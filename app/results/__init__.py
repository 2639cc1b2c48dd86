"""What was found in images, written as files that other tools read: one module for each format."""
