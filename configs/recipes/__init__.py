"""Configs that fit a slice: a file a model, and in it the fields of each slice.

    evr1 train --config=recipes/qwen3_vl_8b:v6e-64 --config.model=... ...

What stands after the colon is an accelerator type of Cloud TPU, or GPUs of one machine
(8xH100-80GB); without it the error lists them. Only sizes of the machine differ between the slices
of a recipe, so all of them train the same. Slots are given, though memory would tell how many fit
(`rollout.slots=0`): the 256 groups of a step are drawn in turns, and with fewer slots that are all
in use a token reads less of the cache than with more in a last turn that few groups have.
`tools/plan_recipes.py` plans every recipe.
"""
