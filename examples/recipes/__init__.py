"""An app for each framework, as docs/guide/frameworks.md shows them."""
