"""Trials in processes of their own, on this machine: supervised, bounded, and gone when they should be."""
