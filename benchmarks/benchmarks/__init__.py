"""asv benchmarks of gumbeltopk: time, memory, and accuracy as well as ratios, both tracked as numbers."""
