"""`python -m benchmarks --json` prints one JSON object with every figure; see CONTRIBUTING.md."""
