"""What all benchmarks share: captures, contests, measuring, results, the table."""
