"""One one-shot algorithm a file; the file's name is what ``--mutator`` takes."""
