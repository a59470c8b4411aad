"""What a plan costs before it runs: counts, bytes and memory, and times by the rates of a machine."""
