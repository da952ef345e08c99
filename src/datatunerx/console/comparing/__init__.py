"""Models beside each other: which they are, what they are asked and answer, which answer was better."""
