"""What a task does beside its training: a file per task that has something to do."""
