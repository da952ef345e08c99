"""datatunerx: train every combination, prove which is best, talk to all of them."""
