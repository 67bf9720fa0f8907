"""An app for each framework, as docs/frameworks.md shows them."""
