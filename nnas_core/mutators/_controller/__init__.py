"""The controller of ENAS: a policy over architectures, sampled step by step and differentiated in few calls."""
