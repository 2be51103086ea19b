"""What norms cost in time and memory, alone and in whole models, and how fast images are loaded.

One file per subject, with its arguments (`add_arguments`) and what `tools/benchmark.py SUBJECT`
does with them (`run`). Everything compared is measured in one run, in turn.
"""
