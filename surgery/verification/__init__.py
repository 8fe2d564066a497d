"""Is a saved checkpoint what its plan says, and does it work elsewhere?

Each module answers one question about what was saved:

    saved        are its tensors those of base and plan?
    folder       do other programs continue texts as the patient does?
    runtimes     those programs, transformers and vLLM, each in a process of its own
    llama_cpp    the same for GGUF files, in llama.cpp
    check_saved  is what it costs, and which skills and scores it keeps, within limits? (for CI)
"""
