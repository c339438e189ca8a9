"""Meta-training around the learners: the loop of ``learn``, schedules, and whether adaptation helps."""
