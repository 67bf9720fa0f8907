"""Every figure of docs/benchmarks.md and docs/verdicts.md comes from here."""
