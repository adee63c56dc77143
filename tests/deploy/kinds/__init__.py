"""One module per kind of sample. Each yields problems: (path inside the file, what is wrong)."""
