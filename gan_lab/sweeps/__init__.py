"""Many runs by one command: which ones, each in a process of its own, and what came out of them."""
