"""Bases made from others.

Each works like any other base:

    stacked  the layers of several bases, one after the other
    united   a stack with the tokens that each of them has added
    resized  a base with as many embeddings as its tokenizer has ids
"""
