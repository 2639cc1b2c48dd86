"""What is labelled first: by uncertainty or at random."""
