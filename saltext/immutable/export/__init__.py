"""Images as files for the rest of the world."""
