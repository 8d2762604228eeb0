"""The figures of the paper, from tables; each is drawn or says which metrics it lacks."""
