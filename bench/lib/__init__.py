"""What bench/run and bench/compare share; each module is one concern."""
