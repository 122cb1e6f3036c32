"""The parts of an ablation's report: its tables, what its models cost, its drawings and its page."""
