"""One frozen base with many named adapters: load, train, generate, save as PEFT."""
