"""Tasks: one LightningModule a file."""
