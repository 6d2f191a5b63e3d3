"""What a model costs: parameters, FLOPs, bytes and latency, read off the operators that it executes."""
