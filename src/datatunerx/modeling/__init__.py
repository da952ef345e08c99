"""One frozen base with many named adapters: load, packed attention, multi-LoRA layers, generate, save as PEFT."""
