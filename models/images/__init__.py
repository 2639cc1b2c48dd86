"""Image files, told apart, refused or decoded: the same for the service, the commands and the training."""
