"""What a `gumbeltopk.Reservoir` is made of: the earliest arrivals so far, chunks, sums of weights, and checkpoints."""
