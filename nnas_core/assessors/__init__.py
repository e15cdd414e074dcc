"""What ends trials early: one algorithm a file, its name is the assessor's name."""
