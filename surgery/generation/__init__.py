"""Text that a model generates, streamed.

A patient brings these together:

    stream              tokens and text pieces, computed as they are asked for
    tokenizer           the tokenizer in a folder of files
    chat_prompt         a prompt in a chat template
    image_prompt        a prompt with an image, for vision-language models
    image_stream        the stream after such a prompt
    preallocated_cache  a KV cache with room for all tokens, for many rows side by side
"""
