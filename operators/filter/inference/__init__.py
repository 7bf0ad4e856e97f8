"""One port to inference, several engines behind it."""
