"""Images in, batches out: readers, splits, samplers, transforms, the datamodule."""
