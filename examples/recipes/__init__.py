"""An app for each framework, as docs/guide/fastapi.md and frameworks.md show them."""
