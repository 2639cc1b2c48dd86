"""The yardstick: the straightforward loop and the service, side by side on the same images."""
