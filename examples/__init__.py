"""Programs that show something, beside the worker."""
