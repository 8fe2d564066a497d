"""Where tensors lie, what they take, and what happens when memory runs out.

None of it knows models or plans:

    devices         which device a model lies on, and how much of its memory is free
    out_of_memory   a message that says what to do, in place of PyTorch's error
    shared_weights  models over shared weights, which are read-only
    garbage         keep Python's collector from running while modules are built
"""
