"""The public verbs: they check arguments, plan, and have the plan run."""
