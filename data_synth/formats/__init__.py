"""The field's step-label formats, read and written."""
