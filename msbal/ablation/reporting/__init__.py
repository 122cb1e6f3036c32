"""The parts of an ablation's report: tables, the shape of a paper's table, costs, plots and the page."""
