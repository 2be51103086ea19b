"""Memory, step time and GPU hours of a training run, computed from its model without a GPU.

step_cost.py counts what one step computes and keeps, planner.py makes bytes, seconds and GPU hours
of it with the numbers of hardware.py, and tables.py prints them.
"""
