"""In which dtype products are computed, whatever dtype weights are stored in.

Stored bytes and counts never change:

    choice           the dtype that a user or this machine's speed chooses
    contexts         contexts that compute in it
    float32_copies   weights that are kept in float32 for many passes
    narrow_products  products of few rows on all cores
"""
