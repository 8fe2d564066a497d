"""Every decoder model in transformers, tiny and random: right, or refused.

sizes      tiny values of config fields, by name
special    what single types need besides
build      a tiny config, model and checkpoint of a type
examine    one type under every plan: patient, checkpoint and oracle side by side
quantized  checkpoints of every method of quantization, saved under plans
table      the results as a page
multimodal, special_multimodal, images, table_multimodal
           the same for models that take images or sounds
__main__   all of it: `python -m tests.zoo`
"""
