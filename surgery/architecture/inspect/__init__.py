"""What a model is: its layers, names, inputs, caches and sizes, found on the meta device."""
