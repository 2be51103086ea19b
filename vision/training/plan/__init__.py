"""Memory, step time and GPU hours of a run, computed from its model on machines that are not here.

hardware.py  what an H100 and its links do, each number marked as the vendor's or assumed
model.py     the model without its memory;  images.py  how many images a data set has
listen.py    what happens in a training step
record.py    takes one step;  recording.py  its kernels and what it keeps
memory.py    bytes per GPU;  step.py  seconds per optimizer step
estimate.py  both for one setup of a config;  tables.py  the same as text
document.py  the tables of docs/scaling.md
"""
