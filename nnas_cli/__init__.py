"""The command line of nnas: options in, one call of ``nnas_core``, output out."""
