"""Every figure that the README and the closing notes quote comes from here."""
