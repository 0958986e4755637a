"""What bench/run, bench/compare and bench/operations share; each module is one concern."""
