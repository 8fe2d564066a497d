"""Plans as files of other programs.

mergekit's YAML is read and written:

    recipe         read one as a plan
    export         write a plan as one, or for PEFT and Python
    merge_methods  its other merge methods, which are refused with the command that runs them
"""
