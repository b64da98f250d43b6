"""On a builder: recipe -> image."""
