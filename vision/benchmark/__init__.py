"""What norms cost: time, memory traffic and memory kept, alone and within whole models."""
