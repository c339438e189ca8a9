"""Learning with memory: playing trials, the update over whole trials, and the interface of its learners."""
