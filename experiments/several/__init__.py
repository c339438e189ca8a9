"""One run on several processes or machines: how they are started, and what each of them does."""
